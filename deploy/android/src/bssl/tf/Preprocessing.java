package bssl.tf;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** From a picture to the network's input, in the steps of {@code deploy/bssl_tf_deploy/preprocess.py}, bit for bit. */
final class Preprocessing {
    /** Grey around pictures that are not of the input's shape. */
    private static final byte FILL = 114;

    private Preprocessing() {}

    /** An image as the network takes it, and which part of the picture that is. */
    static final class Prepared {
        /** [1, H, W, C], of the type in the manifest, in the machine's order of bytes. */
        final ByteBuffer tensor;
        final View view;

        Prepared(ByteBuffer tensor, View view) {
            this.tensor = tensor;
            this.view = view;
        }
    }

    static Prepared prepare(BsslPicture picture, Manifest manifest) {
        Manifest.Pixels p = manifest.preprocessing;
        byte[] framed = new byte[p.height * p.width * p.channels];
        View view = manifest.letterbox() ? letterbox(picture, p, framed) : centralPart(picture, p, framed);
        return new Prepared(tensor(framed, p, manifest.inputs.get(0)), view);
    }

    private static View centralPart(BsslPicture picture, Manifest.Pixels p, byte[] framed) {
        int width = picture.width;
        int height = picture.height;
        double wide = Math.min(width, (double) ((long) height * p.width) / p.height);
        double high = Math.min(height, (double) ((long) width * p.height) / p.width);
        double left = (width - wide) / 2;
        double top = (height - high) / 2;
        double right = left + wide;
        double bottom = top + high;
        byte[] pixels = picture.pixels(p.channels);
        if (width != p.width || height != p.height) {
            float[] box = {(float) left, (float) top, (float) right, (float) bottom};
            pixels = Resize.bilinear(pixels, width, height, p.channels, p.width, p.height, box);
        }
        System.arraycopy(pixels, 0, framed, 0, framed.length);
        return new View(left / width, top / height, right / width, bottom / height, width, height);
    }

    private static View letterbox(BsslPicture picture, Manifest.Pixels p, byte[] framed) {
        int width = picture.width;
        int height = picture.height;
        double ratio = (double) width / height;
        boolean full = ratio > (double) p.width / p.height;
        // Halves go to the even number, as Python rounds.
        int innerWidth = full ? p.width : (int) Math.max(1, Math.rint(p.height * ratio));
        int innerHeight = full ? (int) Math.max(1, Math.rint(p.width / ratio)) : p.height;
        byte[] pixels = picture.pixels(p.channels);
        if (width != innerWidth || height != innerHeight) {
            float[] box = {0, 0, width, height};
            pixels = Resize.bilinear(pixels, width, height, p.channels, innerWidth, innerHeight, box);
        }
        int left = (p.width - innerWidth) / 2;
        int top = (p.height - innerHeight) / 2;
        java.util.Arrays.fill(framed, FILL);
        int line = innerWidth * p.channels;
        for (int y = 0; y < innerHeight; y++) {
            System.arraycopy(pixels, y * line, framed, ((top + y) * p.width + left) * p.channels, line);
        }
        return new View(-(double) left / innerWidth, -(double) top / innerHeight,
                (double) (p.width - left) / innerWidth, (double) (p.height - top) / innerHeight, width, height);
    }

    private static ByteBuffer tensor(byte[] pixels, Manifest.Pixels p, Manifest.TensorSignature about) {
        int size = about.dtype.equals("float32") ? 4 : 1;
        ByteBuffer tensor = ByteBuffer.allocateDirect(size * pixels.length).order(ByteOrder.nativeOrder());
        if (about.dtype.equals("uint8")) {
            tensor.put(pixels);
        } else {
            // There are 256 values a channel.
            float[][] levels = new float[p.channels][256];
            for (int channel = 0; channel < p.channels; channel++) {
                for (int value = 0; value < 256; value++) {
                    levels[channel][value] = (value / 255f - p.mean[channel]) / p.std[channel];
                }
            }
            for (int i = 0; i < pixels.length; i++) {
                float level = levels[i % p.channels][pixels[i] & 255];
                if (about.quantization == null) {
                    tensor.putFloat(level);
                } else {
                    tensor.put(about.quantization.integer(level));
                }
            }
        }
        tensor.rewind();
        return tensor;
    }
}
