package bssl.tf;

import android.graphics.Bitmap;
import java.nio.ByteBuffer;

/**
 * A picture in memory, upright, in RGB of 8 bits. What is transparent is laid over white, as for training.
 *
 * <p>A photo's Exif is not looked at: turn the pixels upright with {@link #rotated}, by the degrees that CameraX or
 * {@code ExifInterface} state.
 */
public final class BsslPicture {
    /** The longest side, pixels. */
    public static final int MAX_SIDE = 32767;

    private static final long MAX_PIXELS = 178_956_970;

    final int width;
    final int height;
    /** [height, width, 3]. */
    final byte[] rgb;

    private BsslPicture(int width, int height, byte[] rgb) {
        this.width = width;
        this.height = height;
        this.rgb = rgb;
    }

    /**
     * Pixels as {@link Bitmap#getPixels} gives them.
     *
     * @param argb [height, width], alpha in the highest byte, then red, green and blue; not kept. Colours are not
     *     multiplied by alpha
     * @param width pixels
     * @param height pixels
     * @return the picture
     * @throws BsslException a side is below 1 or too long, or there are fewer pixels than that
     */
    public static BsslPicture ofArgb(int[] argb, int width, int height) {
        int count = count(width, height);
        if (argb.length < count) {
            throw tooFew(argb.length, "pixels", width, height);
        }
        byte[] rgb = new byte[3 * count];
        for (int i = 0; i < count; i++) {
            int pixel = argb[i];
            put(rgb, 3 * i, pixel >> 16 & 255, pixel >> 8 & 255, pixel & 255, pixel >>> 24);
        }
        return new BsslPicture(width, height, rgb);
    }

    /**
     * Bytes as CameraX's image analysis gives them in {@code OUTPUT_IMAGE_FORMAT_RGBA_8888}.
     *
     * @param rgba from the buffer's position: rows of red, green, blue and alpha, 8 bits each; its position stays
     * @param width pixels
     * @param height pixels
     * @param rowStride bytes from one row to the next, at least 4 {@code width}
     * @return the picture
     * @throws BsslException a side is below 1 or too long, or there are fewer bytes than that
     */
    public static BsslPicture ofRgba(ByteBuffer rgba, int width, int height, int rowStride) {
        int count = count(width, height);
        int first = rgba.position();
        long last = (long) (height - 1) * rowStride + 4L * width;
        if (rowStride < 4 * width || rgba.remaining() < last) {
            throw tooFew(rgba.remaining(), "bytes in rows of " + rowStride, width, height);
        }
        byte[] rgb = new byte[3 * count];
        byte[] row = new byte[4 * width];
        ByteBuffer source = rgba.duplicate();
        for (int y = 0; y < height; y++) {
            source.position(first + y * rowStride);
            source.get(row);
            for (int x = 0; x < width; x++) {
                put(rgb, 3 * (y * width + x), row[4 * x] & 255, row[4 * x + 1] & 255, row[4 * x + 2] & 255,
                        row[4 * x + 3] & 255);
            }
        }
        return new BsslPicture(width, height, rgb);
    }

    /**
     * The pixels of a bitmap.
     *
     * @param bitmap of any configuration whose pixels a program can read (all but {@code HARDWARE}); not kept
     * @return the picture
     * @throws BsslException it is too large
     */
    public static BsslPicture ofBitmap(Bitmap bitmap) {
        int width = bitmap.getWidth();
        int height = bitmap.getHeight();
        int[] argb = new int[count(width, height)];
        bitmap.getPixels(argb, 0, width, 0, 0, width, height);
        return ofArgb(argb, width, height);
    }

    /**
     * The picture turned clockwise.
     *
     * @param degrees 0, 90, 180 or 270, such as {@code ImageInfo.getRotationDegrees} of CameraX
     * @return a new picture, or this one for 0
     * @throws BsslException another number
     */
    public BsslPicture rotated(int degrees) {
        if (degrees != 0 && degrees != 90 && degrees != 180 && degrees != 270) {
            throw BsslException.image(
                    "a picture cannot be turned by " + degrees + " degrees", "Give 0, 90, 180 or 270");
        }
        if (degrees == 0) {
            return this;
        }
        byte[] turned = new byte[rgb.length];
        int to = 0;
        int wide = degrees == 180 ? width : height;
        int high = degrees == 180 ? height : width;
        for (int y = 0; y < high; y++) {
            for (int x = 0; x < wide; x++) {
                int fromX = degrees == 90 ? y : width - 1 - (degrees == 180 ? x : y);
                int fromY = degrees == 90 ? height - 1 - x : degrees == 180 ? height - 1 - y : x;
                int from = 3 * (fromY * width + fromX);
                turned[to++] = rgb[from];
                turned[to++] = rgb[from + 1];
                turned[to++] = rgb[from + 2];
            }
        }
        return new BsslPicture(wide, high, turned);
    }

    /** @return pixels */
    public int getWidth() {
        return width;
    }

    /** @return pixels */
    public int getHeight() {
        return height;
    }

    /** [height, width, channels]: RGB as it is, or for one channel ITU-R 601 luma as Pillow rounds it. */
    byte[] pixels(int channels) {
        if (channels == 3) {
            return rgb;
        }
        byte[] grey = new byte[width * height];
        for (int i = 0; i < grey.length; i++) {
            int red = rgb[3 * i] & 255;
            int green = rgb[3 * i + 1] & 255;
            int blue = rgb[3 * i + 2] & 255;
            grey[i] = (byte) (red * 19595 + green * 38470 + blue * 7471 + 0x8000 >> 16);
        }
        return grey;
    }

    private static void put(byte[] rgb, int at, int red, int green, int blue, int alpha) {
        rgb[at] = overWhite(red, alpha);
        rgb[at + 1] = overWhite(green, alpha);
        rgb[at + 2] = overWhite(blue, alpha);
    }

    /** As Pillow's alpha_composite rounds it where what lies below is opaque. */
    private static byte overWhite(int value, int alpha) {
        int sum = (value * alpha + 255 * (255 - alpha)) * 128 + 128 * 128;
        return (byte) ((sum >> 8) + sum >> 8 >> 7);
    }

    private static int count(int width, int height) {
        if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE || (long) width * height > MAX_PIXELS) {
            throw BsslException.image("a picture of " + width + " x " + height + " pixels cannot be taken",
                    "Give one with sides of 1 to " + MAX_SIDE + " and at most " + MAX_PIXELS + " pixels");
        }
        return width * height;
    }

    private static BsslException tooFew(int given, String what, int width, int height) {
        return BsslException.image(given + " " + what + " are no picture of " + width + " x " + height,
                "Check width, height and row stride");
    }
}
