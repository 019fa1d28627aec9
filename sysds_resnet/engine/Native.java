package codegen;

import java.util.ArrayList;
import org.apache.sysds.runtime.DMLRuntimeException;
import org.apache.sysds.runtime.codegen.SpoofCUDAOperator;
import org.apache.sysds.runtime.codegen.SpoofOperator;
import org.apache.sysds.runtime.instructions.cp.ScalarObject;
import org.apache.sysds.runtime.matrix.data.MatrixBlock;
import org.apache.sysds.utils.NativeHelper;

/**
 * A multiply by the package's native helper (native/helper.cpp), as an operator of the engine's.
 *
 * The text is a template (operators.py); what is in dollars is the multiply's own.
 */
public final class $NAME$ extends SpoofOperator {
  $FRAME$

  public MatrixBlock execute(ArrayList inputs, ArrayList scalars, MatrixBlock out, int threads) {
    if (!NativeHelper.isNativeLibraryLoaded()) {
      throw new DMLRuntimeException("$NAME$: found no native helper on this machine, expected the one that its "
          + "driver has; install sysds-resnet here as there, or run with --blas openblas");
    }
    $INPUTS$
    final int rows = $ROWS$, columns = $COLUMNS$;
    final long cells = (long) rows * columns;
    if (cells > Integer.MAX_VALUE) {
      throw new DMLRuntimeException("$NAME$: found " + rows + " x " + columns
          + " values, expected fewer than 2^31; choose a smaller micro-batch");
    }
    final double[] result = $NEW$;
    final long nonZeros = $CALL$;
    if (nonZeros < 0) {
      throw new DMLRuntimeException("$NAME$: the native helper failed; see the JVM's errors");
    }
    final MatrixBlock block = new MatrixBlock(rows, columns, result);
    block.setNonZeros(nonZeros);
    return block;
  }

  private static int rows(Object matrix) {
    return ((MatrixBlock) matrix).getNumRows();
  }

  private static int columns(Object matrix) {
    return ((MatrixBlock) matrix).getNumColumns();
  }

  private static int number(Object scalar) {
    return (int) ((ScalarObject) scalar).getLongValue();
  }

  private static int outputs(int size, int stride) {
    return (size - 1) / stride + 1; // with padding (K - 1) / 2
  }
}
