package bssl.tf;

/** The part of a picture that the network saw, as shares of the picture; it may reach past the picture's border. */
final class View {
    final double left;
    final double top;
    final double right;
    final double bottom;
    /** Of the picture, pixels. */
    final double width;
    final double height;

    View(double left, double top, double right, double bottom, double width, double height) {
        this.left = left;
        this.top = top;
        this.right = right;
        this.bottom = bottom;
        this.width = width;
        this.height = height;
    }
}
