package bssl.tf;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** From a network's outputs to answers, in the steps of {@code deploy/bssl_tf_deploy/tasks}. */
final class Answers {
    private static final double MAX_LOG_DISTANCE = 8;
    private static final int MAX_CANDIDATES = 1000;

    private Answers() {}

    /** A box: left, top, right, bottom. */
    private static final class Found {
        final float[] box;
        final float score;
        final int kind;

        Found(float[] box, float score, int kind) {
            this.box = box;
            this.score = score;
            this.kind = kind;
        }
    }

    /** The best classes with softmax(logits / temperature); of equal ones the first comes first. */
    static List<ScoredLabel> classes(float[] logits, Manifest manifest, int limit) {
        double largest = Double.NEGATIVE_INFINITY;
        for (float logit : logits) {
            largest = Math.max(largest, logit);
        }
        double[] exponentials = new double[logits.length];
        double sum = 0;
        for (int i = 0; i < logits.length; i++) {
            exponentials[i] = StrictMath.exp((logits[i] - largest) / manifest.temperature);
            sum += exponentials[i];
        }
        Integer[] order = new Integer[logits.length];
        Arrays.setAll(order, i -> i);
        Arrays.sort(order, (one, other) -> descending(logits[one], logits[other]));
        List<ScoredLabel> best = new ArrayList<>();
        for (int i = 0; i < Math.min(limit, order.length); i++) {
            best.add(new ScoredLabel(manifest.labels[order[i]], (float) (exponentials[order[i]] / sum)));
        }
        return best;
    }

    /**
     * Boxes in pixels of the picture, best first.
     *
     * @param outputs in the manifest's order, without the batch
     */
    static List<DetectedBox> boxes(List<float[]> outputs, Manifest manifest, View view, int limit) {
        List<Found> found;
        double width = 1;
        double height = 1;
        if (manifest.finalBoxes()) {
            found = ofFinal(outputs, manifest.labels.length);
        } else {
            found = suppress(candidates(outputs, manifest), (float) manifest.maxOverlap, manifest.maxBoxes);
            width = manifest.preprocessing.width;
            height = manifest.preprocessing.height;
        }
        double scaleX = (view.right - view.left) / width;
        double scaleY = (view.bottom - view.top) / height;
        List<DetectedBox> made = new ArrayList<>();
        for (Found one : found) {
            float left = share(one.box[0], scaleX, view.left);
            float top = share(one.box[1], scaleY, view.top);
            float right = share(one.box[2], scaleX, view.left);
            float bottom = share(one.box[3], scaleY, view.top);
            // What lies outside the picture is dropped.
            if (right > left && bottom > top && made.size() < limit) {
                made.add(new DetectedBox(manifest.labels[one.kind], one.score, (float) (left * view.width),
                        (float) (top * view.height), (float) (right * view.width), (float) (bottom * view.height)));
            }
        }
        return made;
    }

    private static float share(float side, double scale, double start) {
        return (float) Math.max(0, Math.min(1, side * scale + start));
    }

    /** Every box of every class with the least score, best first; of equal scores the finer stride, then by place. */
    private static List<Found> candidates(List<float[]> outputs, Manifest manifest) {
        float least = (float) (StrictMath.log(manifest.minScore) - StrictMath.log1p(-manifest.minScore));
        int classes = manifest.labels.length;
        List<Found> every = new ArrayList<>();
        for (int stride : manifest.strides) {
            float[] logits = outputs.get(manifest.output("scores_" + stride));
            float[] sides = outputs.get(manifest.output("boxes_" + stride));
            int columns = manifest.preprocessing.width / stride;
            for (int i = 0; i < logits.length; i++) {
                if (!(logits[i] >= least)) {
                    continue;
                }
                int cell = i / classes;
                float x = cell % columns + 0.5f;
                float y = cell / columns + 0.5f;
                float[] box = {(x - distance(sides[4 * cell])) * stride, (y - distance(sides[4 * cell + 1])) * stride,
                        (x + distance(sides[4 * cell + 2])) * stride, (y + distance(sides[4 * cell + 3])) * stride};
                every.add(new Found(box, (float) (1 / (1 + StrictMath.exp(-(double) logits[i]))), i % classes));
            }
        }
        every.sort((one, other) -> descending(one.score, other.score));
        List<Found> best = new ArrayList<>();
        for (Found one : every) {
            if (isFinite(one.box) && best.size() < MAX_CANDIDATES) {
                best.add(one);
            }
        }
        return best;
    }

    private static float distance(float logarithm) {
        return (float) StrictMath.exp(Math.max(-MAX_LOG_DISTANCE, Math.min(MAX_LOG_DISTANCE, (double) logarithm)));
    }

    /** Greedy non-maximum suppression within each class. */
    private static List<Found> suppress(List<Found> found, float maxOverlap, int limit) {
        boolean[] dropped = new boolean[found.size()];
        List<Found> kept = new ArrayList<>();
        for (int i = 0; i < dropped.length && kept.size() < limit; i++) {
            if (dropped[i]) {
                continue;
            }
            Found best = found.get(i);
            kept.add(best);
            for (int j = i + 1; j < dropped.length; j++) {
                Found other = found.get(j);
                dropped[j] |= other.kind == best.kind && !(overlap(best.box, other.box) <= maxOverlap);
            }
        }
        return kept;
    }

    private static float overlap(float[] one, float[] other) {
        float shared = area(Math.max(one[0], other[0]), Math.max(one[1], other[1]), Math.min(one[2], other[2]),
                Math.min(one[3], other[3]));
        float union = area(one[0], one[1], one[2], one[3]) + area(other[0], other[1], other[2], other[3]) - shared;
        return union > 0 ? shared / union : 0;
    }

    private static float area(float left, float top, float right, float bottom) {
        return Math.max(right - left, 0f) * Math.max(bottom - top, 0f);
    }

    /** What TFLite's operator gives, as shares of the input; what makes no sense is dropped. */
    private static List<Found> ofFinal(List<float[]> outputs, int classes) {
        float[] boxes = outputs.get(0);
        float[] kinds = outputs.get(1);
        float[] scores = outputs.get(2);
        float count = outputs.get(3)[0];
        List<Found> found = new ArrayList<>();
        for (int i = 0; i < scores.length && i < count; i++) {
            float[] box = {boxes[4 * i + 1], boxes[4 * i], boxes[4 * i + 3], boxes[4 * i + 2]};
            boolean known = kinds[i] >= 0 && kinds[i] < classes;
            if (known && isFinite(box) && !Float.isNaN(scores[i]) && !Float.isInfinite(scores[i])) {
                found.add(new Found(box, scores[i], (int) kinds[i]));
            }
        }
        return found;
    }

    private static boolean isFinite(float[] box) {
        for (float side : box) {
            if (Float.isNaN(side) || Float.isInfinite(side)) {
                return false;
            }
        }
        return true;
    }

    /** Larger numbers first, what is none last; unlike in Float.compare, zeros are equal. */
    private static int descending(float one, float other) {
        if (Float.isNaN(one) || Float.isNaN(other)) {
            return Boolean.compare(Float.isNaN(one), Float.isNaN(other));
        }
        return one > other ? -1 : one < other ? 1 : 0;
    }
}
