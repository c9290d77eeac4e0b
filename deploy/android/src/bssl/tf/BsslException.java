package bssl.tf;

/** What went wrong and what to do next, in one line: {@code error[bundle]: ... . Export it again.} */
public final class BsslException extends RuntimeException {
    private static final long serialVersionUID = 1;

    private final String code;

    BsslException(String code, String what, String nextStep, Throwable cause) {
        super("error[" + code + "]: " + printable(what) + ". " + printable(nextStep) + ".", cause);
        this.code = code;
    }

    static BsslException bundle(String what, String nextStep, Throwable cause) {
        return new BsslException("bundle", what, nextStep, cause);
    }

    static BsslException image(String what, String nextStep) {
        return new BsslException("image", what, nextStep, null);
    }

    static BsslException runtime(String what, String nextStep, Throwable cause) {
        return new BsslException("runtime", what, nextStep, cause);
    }

    /**
     * The kind of fault, which stays the same from version to version.
     *
     * @return {@code bundle}, {@code image} or {@code runtime}
     */
    public String getCode() {
        return code;
    }

    /** Text in one line: whatever would break it, steer a terminal or turn its direction becomes an escape. */
    static String printable(String text) {
        StringBuilder line = new StringBuilder();
        for (int at = 0; at < text.length();) {
            int letter = text.codePointAt(at);
            at += Character.charCount(letter);
            switch (Character.getType(letter)) {
                case Character.CONTROL:
                case Character.FORMAT:
                case Character.SURROGATE:
                case Character.PRIVATE_USE:
                case Character.UNASSIGNED:
                case Character.LINE_SEPARATOR:
                case Character.PARAGRAPH_SEPARATOR:
                    line.append(String.format(java.util.Locale.ROOT, "\\u%04x", letter));
                    break;
                default:
                    line.appendCodePoint(letter);
            }
        }
        return line.toString();
    }
}
