package bssl.tf;

/** One object that was found. Sides are in pixels of the picture that was given, from its upper left corner. */
public final class DetectedBox {
    private final String label;
    private final float score;
    private final float left;
    private final float top;
    private final float right;
    private final float bottom;

    DetectedBox(String label, float score, float left, float top, float right, float bottom) {
        this.label = label;
        this.score = score;
        this.left = left;
        this.top = top;
        this.right = right;
        this.bottom = bottom;
    }

    /** @return the name of its class, as the bundle has it */
    public String getLabel() {
        return label;
    }

    /** @return 0 to 1, not calibrated */
    public float getScore() {
        return score;
    }

    /** @return the left side, pixels */
    public float getLeft() {
        return left;
    }

    /** @return the upper side, pixels */
    public float getTop() {
        return top;
    }

    /** @return the right side, pixels */
    public float getRight() {
        return right;
    }

    /** @return the lower side, pixels */
    public float getBottom() {
        return bottom;
    }

    @Override
    public String toString() {
        return String.format(java.util.Locale.ROOT, "%s  %.4f  %.1f %.1f %.1f %.1f", BsslException.printable(label),
                score, left, top, right, bottom);
    }
}
