package bssl.tf;

/** A class and its score. In Kotlin: {@code for ((label, score) in classifier.classify(picture))}. */
public final class ScoredLabel {
    private final String label;
    private final float score;

    ScoredLabel(String label, float score) {
        this.label = label;
        this.score = score;
    }

    /** @return the name of the class, as the bundle has it */
    public String getLabel() {
        return label;
    }

    /** @return 0 to 1; over all classes of an image they sum to 1 */
    public float getScore() {
        return score;
    }

    /** @return the label, for Kotlin's destructuring */
    public String component1() {
        return label;
    }

    /** @return the score, for Kotlin's destructuring */
    public float component2() {
        return score;
    }

    @Override
    public String toString() {
        return String.format(java.util.Locale.ROOT, "%s  %.4f", BsslException.printable(label), score);
    }
}
