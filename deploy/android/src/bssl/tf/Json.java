package bssl.tf;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * Reads JSON strictly, and writes it as Python does, which a manifest's checksum is made from.
 *
 * <p>Values are {@code Map<String, Object>}, {@code List<Object>}, {@code String}, {@link Number}, {@code Boolean} and
 * null. Android's {@code org.json} takes more than JSON, and forgets how a number was written.
 */
final class Json {
    private static final int MAX_DEPTH = 100;

    private final String text;
    private int at;

    private Json(String text) {
        this.text = text;
    }

    /** Not valid JSON, or not what was expected; the message says where. */
    static final class Fault extends Exception {
        private static final long serialVersionUID = 1;

        Fault(String message) {
            super(message);
        }
    }

    /** A number as it was written. */
    static final class Number {
        final String text;

        Number(String text) {
            this.text = text;
        }

        boolean isWhole() {
            return text.indexOf('.') < 0 && text.indexOf('e') < 0 && text.indexOf('E') < 0;
        }

        double value() {
            return Double.parseDouble(text);
        }
    }

    static Object parse(byte[] utf8) throws Fault {
        String text;
        try {
            text = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(utf8)).toString();
        } catch (CharacterCodingException error) {
            throw new Fault("it is not UTF-8");
        }
        Json json = new Json(text);
        Object value = json.value(0);
        json.space();
        if (json.at < text.length()) {
            throw json.fault("the end");
        }
        return value;
    }

    /** The shortest form: keys sorted, no spaces, everything beyond ASCII escaped, numbers as they were written. */
    static String canonical(Object value) {
        StringBuilder out = new StringBuilder();
        write(value, out);
        return out.toString();
    }

    private Object value(int depth) throws Fault {
        if (depth > MAX_DEPTH) {
            throw fault("fewer brackets within brackets");
        }
        space();
        char first = peek();
        switch (first) {
            case '{':
                return object(depth);
            case '[':
                return list(depth);
            case '"':
                return string();
            case 't':
                return word("true", Boolean.TRUE);
            case 'f':
                return word("false", Boolean.FALSE);
            case 'n':
                return word("null", null);
            default:
                return number();
        }
    }

    private Map<String, Object> object(int depth) throws Fault {
        Map<String, Object> made = new LinkedHashMap<>();
        at++;
        space();
        if (peek() == '}') {
            at++;
            return made;
        }
        while (true) {
            space();
            if (peek() != '"') {
                throw fault("a name in quotes");
            }
            String name = string();
            space();
            if (peek() != ':') {
                throw fault("':'");
            }
            at++;
            Object value = value(depth + 1);
            if (made.containsKey(name)) {
                throw new Fault("the name \"" + name + "\" stands in it twice");
            }
            made.put(name, value);
            space();
            if (peek() == '}') {
                at++;
                return made;
            }
            comma("}");
        }
    }

    private List<Object> list(int depth) throws Fault {
        List<Object> made = new ArrayList<>();
        at++;
        space();
        if (peek() == ']') {
            at++;
            return made;
        }
        while (true) {
            made.add(value(depth + 1));
            space();
            if (peek() == ']') {
                at++;
                return made;
            }
            comma("]");
        }
    }

    private void comma(String otherwise) throws Fault {
        if (peek() != ',') {
            throw fault("',' or '" + otherwise + "'");
        }
        at++;
    }

    private String string() throws Fault {
        StringBuilder made = new StringBuilder();
        at++;
        while (true) {
            char letter = peek();
            at++;
            if (letter == '"') {
                return made.toString();
            }
            if (letter < ' ') {
                at--;
                throw fault("a string without line breaks and tabs");
            }
            made.append(letter == '\\' ? escaped() : letter);
        }
    }

    private char escaped() throws Fault {
        char letter = peek();
        at++;
        switch (letter) {
            case '"':
            case '\\':
            case '/':
                return letter;
            case 'b':
                return '\b';
            case 'f':
                return '\f';
            case 'n':
                return '\n';
            case 'r':
                return '\r';
            case 't':
                return '\t';
            case 'u':
                int code = 0;
                for (int i = 0; i < 4; i++) {
                    char digit = peek();
                    // Character.digit takes digits of other scripts too.
                    if (digit > 'f' || Character.digit(digit, 16) < 0) {
                        throw fault("four hexadecimal digits");
                    }
                    code = code * 16 + Character.digit(digit, 16);
                    at++;
                }
                return (char) code;
            default:
                at--;
                throw fault("a known escape");
        }
    }

    private Number number() throws Fault {
        int start = at;
        if (peek() == '-') {
            at++;
        }
        int whole = at;
        digits();
        if (at - whole > 1 && text.charAt(whole) == '0') {
            at = whole + 1;
            throw fault("a number without a leading zero");
        }
        if (at < text.length() && text.charAt(at) == '.') {
            at++;
            digits();
        }
        if (at < text.length() && (text.charAt(at) == 'e' || text.charAt(at) == 'E')) {
            at++;
            if (peek() == '+' || peek() == '-') {
                at++;
            }
            digits();
        }
        return new Number(text.substring(start, at));
    }

    private void digits() throws Fault {
        int start = at;
        while (at < text.length() && text.charAt(at) >= '0' && text.charAt(at) <= '9') {
            at++;
        }
        if (at == start) {
            throw fault("a value");
        }
    }

    private Object word(String word, Object value) throws Fault {
        if (!text.startsWith(word, at)) {
            throw fault("a value");
        }
        at += word.length();
        return value;
    }

    private void space() {
        while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
    }

    private char peek() throws Fault {
        if (at >= text.length()) {
            throw new Fault("it ends too early");
        }
        return text.charAt(at);
    }

    private Fault fault(String wanted) {
        return new Fault("it is not valid JSON at character " + at + ", where " + wanted + " is expected");
    }

    private static void write(Object value, StringBuilder out) {
        if (value instanceof Map) {
            // By code points, as Python sorts; Java's own order is by halves of them.
            Map<String, Object> sorted = new TreeMap<>(Json::byCodePoints);
            for (Map.Entry<?, ?> entry : ((Map<?, ?>) value).entrySet()) {
                sorted.put((String) entry.getKey(), entry.getValue());
            }
            String before = "{";
            for (Map.Entry<String, Object> entry : sorted.entrySet()) {
                out.append(before);
                writeString(entry.getKey(), out);
                out.append(':');
                write(entry.getValue(), out);
                before = ",";
            }
            out.append(sorted.isEmpty() ? "{}" : "}");
        } else if (value instanceof List) {
            String before = "[";
            for (Object item : (List<?>) value) {
                out.append(before);
                write(item, out);
                before = ",";
            }
            out.append(((List<?>) value).isEmpty() ? "[]" : "]");
        } else if (value instanceof String) {
            writeString((String) value, out);
        } else {
            out.append(value instanceof Number ? ((Number) value).text : String.valueOf(value));
        }
    }

    private static void writeString(String value, StringBuilder out) {
        out.append('"');
        for (int i = 0; i < value.length(); i++) {
            char letter = value.charAt(i);
            int escape = "\"\\\n\r\t\b\f".indexOf(letter);
            if (escape >= 0) {
                out.append('\\').append("\"\\nrtbf".charAt(escape));
            } else if (letter < ' ' || letter > '~') {
                out.append(String.format(java.util.Locale.ROOT, "\\u%04x", (int) letter));
            } else {
                out.append(letter);
            }
        }
        out.append('"');
    }

    private static int byCodePoints(String one, String other) {
        int at = 0;
        while (at < one.length() && at < other.length()) {
            int first = one.codePointAt(at);
            int second = other.codePointAt(at);
            if (first != second) {
                return Integer.compare(first, second);
            }
            at += Character.charCount(first);
        }
        return Integer.compare(one.length(), other.length());
    }
}
