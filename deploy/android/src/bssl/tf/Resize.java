package bssl.tf;

/**
 * Pillow's BILINEAR resize for 8 bits, bit for bit: a triangle filter that widens where it shrinks, first along rows
 * and then along columns, with weights in whole numbers of 22 bits after the point. {@code
 * deploy/bssl_tf_deploy/preprocess.py} resizes with Pillow itself.
 */
final class Resize {
    private static final int PRECISION_BITS = 32 - 8 - 2;

    private Resize() {}

    /**
     * A part of a picture at another size.
     *
     * @param pixels [height, width, channels]
     * @param box left, top, right and bottom of the part, pixels, within the picture
     * @return [toHeight, toWidth, channels]
     */
    static byte[] bilinear(byte[] pixels, int width, int height, int channels, int toWidth, int toHeight, float[] box) {
        boolean alongRows = toWidth != width || box[0] != 0 || box[2] != toWidth;
        boolean alongColumns = toHeight != height || box[1] != 0 || box[3] != toHeight;
        Weights vertical = new Weights(height, box[1], box[3], toHeight);
        byte[] rows = pixels;
        int firstRow = 0;
        if (alongRows) {
            // Rows that no weight reaches are left out.
            firstRow = vertical.first[0];
            int count = vertical.first[toHeight - 1] + vertical.count[toHeight - 1] - firstRow;
            Weights horizontal = new Weights(width, box[0], box[2], toWidth);
            rows = rows(pixels, width, channels, toWidth, firstRow, count, horizontal);
        }
        return alongColumns ? columns(rows, toWidth, channels, toHeight, firstRow, vertical) : rows;
    }

    private static byte[] rows(
            byte[] pixels, int width, int channels, int toWidth, int firstRow, int rowCount, Weights w) {
        byte[] made = new byte[rowCount * toWidth * channels];
        int to = 0;
        for (int y = 0; y < rowCount; y++) {
            int row = (firstRow + y) * width;
            for (int x = 0; x < toWidth; x++) {
                for (int channel = 0; channel < channels; channel++) {
                    int sum = 1 << PRECISION_BITS - 1;
                    int from = (row + w.first[x]) * channels + channel;
                    for (int k = 0; k < w.count[x]; k++, from += channels) {
                        sum += (pixels[from] & 255) * w.weights[x * w.most + k];
                    }
                    made[to++] = clip(sum);
                }
            }
        }
        return made;
    }

    private static byte[] columns(byte[] rows, int toWidth, int channels, int toHeight, int firstRow, Weights w) {
        int line = toWidth * channels;
        byte[] made = new byte[toHeight * line];
        int[] sums = new int[line];
        for (int y = 0; y < toHeight; y++) {
            java.util.Arrays.fill(sums, 1 << PRECISION_BITS - 1);
            for (int k = 0; k < w.count[y]; k++) {
                int weight = w.weights[y * w.most + k];
                int from = (w.first[y] - firstRow + k) * line;
                for (int i = 0; i < line; i++) {
                    sums[i] += (rows[from + i] & 255) * weight;
                }
            }
            for (int i = 0; i < line; i++) {
                made[y * line + i] = clip(sums[i]);
            }
        }
        return made;
    }

    private static byte clip(int sum) {
        return (byte) Math.max(0, Math.min(255, sum >> PRECISION_BITS));
    }

    /** For each pixel of a line of the result, which pixels of the source it is made of, and their weights. */
    private static final class Weights {
        final int most;
        final int[] first;
        final int[] count;
        /** [size, most]. */
        final int[] weights;

        Weights(int from, float start, float end, int size) {
            double scale = (double) (end - start) / size;
            double filterScale = Math.max(scale, 1.0);
            // How far the triangle reaches to each side.
            double support = filterScale;
            most = (int) Math.ceil(support) * 2 + 1;
            first = new int[size];
            count = new int[size];
            weights = new int[size * most];
            double[] shares = new double[most];
            for (int i = 0; i < size; i++) {
                double center = start + (i + 0.5) * scale;
                double narrow = 1.0 / filterScale;
                int low = Math.max(0, (int) (center - support + 0.5));
                int high = Math.min(from, (int) (center + support + 0.5));
                double sum = 0;
                for (int k = 0; k < high - low; k++) {
                    double away = Math.abs((k + low - center + 0.5) * narrow);
                    shares[k] = away < 1.0 ? 1.0 - away : 0.0;
                    sum += shares[k];
                }
                first[i] = low;
                count[i] = high - low;
                for (int k = 0; k < high - low; k++) {
                    double share = sum != 0 ? shares[k] / sum : shares[k];
                    weights[i * most + k] = (int) (0.5 + share * (1 << PRECISION_BITS));
                }
            }
        }
    }
}
