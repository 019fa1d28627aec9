  // What the operators that call the native helper have in common; templates.py puts it into their classes.

  private static void checkHelper() {
    if (!NativeHelper.isNativeLibraryLoaded()) {
      throw new DMLRuntimeException("$NAME$: found no native helper on this machine, expected the one that its "
          + "driver has; install sysds-resnet here as there, have /tmp not mounted noexec, or run with --blas "
          + "openblas");
    }
  }

  /** Throws the error for a code of the helper (Code in engine/native/errors.h), for a result of this shape. */
  private static void check(long status, int rows, int columns) {
    if (status < 0) {
      throw failure(status, rows, columns);
    }
  }

  /** Gives the error for a code of the helper (Code in engine/native/errors.h); users can fix only lack of memory. */
  private static RuntimeException failure(long status, int rows, int columns) {
    final String of = "native helper: for " + rows + " x " + columns + " results of $NAME$ it found ";
    if (status == -2) {
      return new DMLScriptException(of + "no memory outside of the JVM's heap, expected some; choose a smaller "
          + "--micro-batch, or a smaller --heap, which leaves more of the machine's memory");
    }
    final String what = status == -3 ? "sizes that do not fit" : status == -4 ? "no access to the JVM's arrays"
        : "that oneDNN fails";
    return new DMLRuntimeException(of + what + "; what it says is in the JVM's errors");
  }
