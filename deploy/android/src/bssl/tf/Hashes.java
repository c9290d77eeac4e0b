package bssl.tf;

import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;

/** SHA-256, which every Android has. */
final class Hashes {
    private Hashes() {}

    static String sha256(byte[] content) {
        return text(sha256().digest(content));
    }

    static MessageDigest sha256() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException error) {
            throw new AssertionError(error);
        }
    }

    /** In lower-case hexadecimal. */
    static String text(byte[] hash) {
        StringBuilder made = new StringBuilder();
        for (byte one : hash) {
            made.append(Character.forDigit(one >> 4 & 15, 16)).append(Character.forDigit(one & 15, 16));
        }
        return made.toString();
    }
}
