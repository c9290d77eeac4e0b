package org.tensorflow.lite;

/** TensorFlow Lite's interface, to compile against; never packed. */
public interface Delegate extends java.io.Closeable {
    long getNativeHandle();

    @Override
    default void close() {}
}
