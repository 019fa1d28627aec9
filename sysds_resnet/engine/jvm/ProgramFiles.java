package sysds_resnet;

import java.io.BufferedInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import org.apache.sysds.runtime.DMLScriptException;

/**
 * Checks of a DML program's files before it runs: inputs that the engine would read wrongly without an error, and
 * outputs that it would fail to write after hours. Files under URLs are not checked.
 *
 * Launcher.java has Janino compile it in the engine's JVM, so it keeps to the Java that Janino accepts.
 */
public class ProgramFiles {
  /** Throws unless all lines of a CSV file have the same number of values; the engine ignores surplus values. */
  public static void checkCsv(String file) throws Exception {
    if (isUrl(file) || !Files.isRegularFile(Paths.get(file)))
      return;
    InputStream bytes = new BufferedInputStream(Files.newInputStream(Paths.get(file)), 1 << 20);
    try {
      int expected = -1;
      int values = 1;
      boolean empty = true;
      for (int line = 1, next = bytes.read(); ; next = bytes.read()) {
        if (next == '\n' || next < 0) {
          if (!empty && expected < 0)
            expected = values;
          if (!empty && values != expected)
            throw new DMLScriptException(file + ": found " + values + " values in line " + line + ", expected "
              + expected + " as in the first; correct the file");
          if (next < 0)
            return;
          line++;
          values = 1;
          empty = true;
        }
        else if (next == ',')
          values++;
        else if (next != '\r')
          empty = false;
      }
    } finally {
      bytes.close();
    }
  }

  /** Throws unless a file, or a folder with files, can be written at a path. */
  public static void checkWritable(String argument, String path, boolean folder) throws Exception {
    if (isUrl(path))
      return;
    Path target = Paths.get(path).toAbsolutePath();
    if (folder && Files.exists(target) && !Files.isDirectory(target))
      throw new DMLScriptException(argument + ": found a file at " + path + ", expected a new folder or one with "
        + "weights; choose another");
    Path place = folder ? target : target.getParent();
    while (place.getParent() != null && !Files.exists(place))
      place = place.getParent();
    try {
      Files.delete(Files.createTempFile(place, ".", ".tmp"));
    } catch (IOException error) {
      throw new DMLScriptException(argument + ": found that nothing can be written to " + place + " for " + path + " ("
        + error.getClass().getSimpleName() + "), expected a folder that can be written to; choose another");
    }
  }

  private static boolean isUrl(String path) {
    return path.matches("[a-zA-Z][a-zA-Z0-9+.-]*:.*");
  }
}
