package bssl.tf;

import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

/** An object of JSON that is read strictly: no key too few, none too many, every type as it is asked for. */
final class Strict {
    private final Map<String, Object> values;
    private final String where;

    private Strict(Map<String, Object> values, String where) {
        this.values = values;
        this.where = where;
    }

    /** {@code value} as an object with exactly these keys. */
    static Strict of(Object value, String where, String... keys) throws Json.Fault {
        Strict made = any(value, where);
        Set<String> odd = new TreeSet<>(made.values.keySet());
        Set<String> wanted = new TreeSet<>(Arrays.asList(keys));
        odd.removeAll(wanted);
        if (!odd.isEmpty()) {
            throw new Json.Fault(where + " has the unknown key '" + odd.iterator().next() + "'");
        }
        wanted.removeAll(made.values.keySet());
        if (!wanted.isEmpty()) {
            throw new Json.Fault(where + " has the missing key '" + wanted.iterator().next() + "'");
        }
        return made;
    }

    /** {@code value} as an object with any keys. */
    @SuppressWarnings("unchecked")
    static Strict any(Object value, String where) throws Json.Fault {
        expect(value instanceof Map, where, "an object");
        return new Strict((Map<String, Object>) value, where);
    }

    /** Throws "WHERE is not WHAT" unless it holds. */
    static void expect(boolean holds, String where, String what) throws Json.Fault {
        if (!holds) {
            throw new Json.Fault(where + " is not " + what);
        }
    }

    Set<String> keys() {
        return values.keySet();
    }

    Object get(String key) {
        return values.get(key);
    }

    String where(String key) {
        return where + "." + key;
    }

    String text(String key) throws Json.Fault {
        expect(get(key) instanceof String, where(key), "of type str");
        return (String) get(key);
    }

    int whole(String key) throws Json.Fault {
        return whole(get(key), where(key));
    }

    double number(String key) throws Json.Fault {
        return number(get(key), where(key));
    }

    @SuppressWarnings("unchecked")
    List<Object> list(String key) throws Json.Fault {
        expect(get(key) instanceof List, where(key), "a list");
        return (List<Object>) get(key);
    }

    float[] floats(String key) throws Json.Fault {
        List<Object> items = list(key);
        float[] made = new float[items.size()];
        for (int i = 0; i < made.length; i++) {
            made[i] = (float) number(items.get(i), where(key) + "[" + i + "]");
        }
        return made;
    }

    int[] wholes(String key) throws Json.Fault {
        List<Object> items = list(key);
        int[] made = new int[items.size()];
        for (int i = 0; i < made.length; i++) {
            made[i] = whole(items.get(i), where(key) + "[" + i + "]");
        }
        return made;
    }

    String[] texts(String key) throws Json.Fault {
        List<Object> items = list(key);
        for (int i = 0; i < items.size(); i++) {
            expect(items.get(i) instanceof String, where(key) + "[" + i + "]", "of type str");
        }
        return items.toArray(new String[0]);
    }

    private static int whole(Object value, String where) throws Json.Fault {
        expect(value instanceof Json.Number && ((Json.Number) value).isWhole(), where, "of type int");
        try {
            return Integer.parseInt(((Json.Number) value).text);
        } catch (NumberFormatException error) {
            throw new Json.Fault(where + " is not a number of 32 bits");
        }
    }

    private static double number(Object value, String where) throws Json.Fault {
        expect(value instanceof Json.Number, where, "a number");
        double number = ((Json.Number) value).value();
        expect(-1e300 < number && number < 1e300, where, "a finite number");
        return number;
    }
}
