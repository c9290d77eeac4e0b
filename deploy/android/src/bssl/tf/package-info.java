/**
 * Runs bundles of bssl-tf on Android: 1-bit networks in TensorFlow Lite's interpreter.
 *
 * <p>{@link bssl.tf.BsslClassifier} and {@link bssl.tf.BsslDetector} take a bundle out of an app's assets and pictures
 * to answers. {@link bssl.tf.BsslDelegate} alone is for apps that prepare pictures and read outputs themselves. What is
 * wrong with a bundle, a picture or a phone is a {@link bssl.tf.BsslException} with one line to read.
 */
package bssl.tf;
