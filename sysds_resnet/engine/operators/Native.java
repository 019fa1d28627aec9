package codegen;

import java.nio.FloatBuffer;
import java.util.ArrayList;
import jdk.incubator.vector.DoubleVector;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;
import org.apache.sysds.runtime.DMLRuntimeException;
import org.apache.sysds.runtime.DMLScriptException;
import org.apache.sysds.runtime.codegen.SpoofCUDAOperator;
import org.apache.sysds.runtime.codegen.SpoofOperator;
import org.apache.sysds.runtime.data.DenseBlockFP32;
import org.apache.sysds.runtime.instructions.cp.ScalarObject;
import org.apache.sysds.runtime.matrix.data.MatrixBlock;
import org.apache.sysds.utils.NativeHelper;

/**
 * A convolution or a matrix product by the native helper (engine/native/helper.cpp), as an operator of the engine.
 *
 * The text is a template: classes.py replaces the names between dollar signs by what one operator needs.
 */
public final class $NAME$ extends SpoofOperator {
  private static final boolean IS_SUM = $IS_SUM$; // whether it is a sum over pixels, in FP64 for what is done with it

  $FRAME$

  public MatrixBlock execute(ArrayList inputs, ArrayList scalars, MatrixBlock out, int threads) {
    if (!NativeHelper.isNativeLibraryLoaded()) {
      throw new DMLRuntimeException("$NAME$: found no native helper on this machine, expected the one that its "
          + "driver has; install sysds-resnet here as there, have /tmp not mounted noexec, or run with --blas "
          + "openblas");
    }
    final MatrixBlock images = matrix(inputs, $IMAGES$), gradient = matrix(inputs, $GRADIENT$);
    final MatrixBlock filters = matrix(inputs, $FILTERS$);
    int height = 1, width = 1, k = 1, stride = 1;
    if (scalars.size() == 4) {
      height = number(scalars, 0);
      width = number(scalars, 1);
      k = number(scalars, 2);
      stride = number(scalars, 3);
    }
    final int heightOut = (height - 1) / stride + 1, widthOut = (width - 1) / stride + 1; // padding is (k - 1) / 2
    final int n = images != null
        ? images.getNumRows() / (height * width) : gradient.getNumRows() / (heightOut * widthOut);
    final int channels = images != null ? images.getNumColumns() : filters.getNumRows() / (k * k);
    final int count = gradient != null ? gradient.getNumColumns()
        : filters != null ? filters.getNumColumns() : channels;
    check("images", images, n * height * width, channels);
    check("a gradient", gradient, n * heightOut * widthOut, count);
    check("filters", filters, k * k * channels, count);
    final int rows, columns;
    if (images == null) {
      rows = n * height * width;
      columns = channels;
    } else if (filters == null) {
      rows = k * k * channels;
      columns = count;
    } else {
      rows = n * heightOut * widthOut;
      columns = count;
    }
    final float[] result = newfloats(cells(rows, columns));
    final long status = NativeHelper.sconv2dBiasAddDense(buffer(images), buffer(gradient), buffer(filters),
        FloatBuffer.wrap(result), n, channels, height, width, count, k, k, stride, stride, (k - 1) / 2, (k - 1) / 2,
        heightOut, widthOut, threads);
    if (status < 0) {
      throw failure(status, rows, columns);
    }
    return IS_SUM ? block(rows, columns, widened(result)) : block(rows, columns, result);
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

  private static void check(String name, MatrixBlock matrix, int rows, int columns) {
    if (matrix != null && (matrix.getNumRows() != rows || matrix.getNumColumns() != columns)) {
      throw new DMLRuntimeException("$NAME$: found " + name + " of " + matrix.getNumRows() + " x "
          + matrix.getNumColumns() + ", expected " + rows + " x " + columns);
    }
  }

  private static MatrixBlock matrix(ArrayList inputs, int i) {
    return i < 0 ? null : (MatrixBlock) inputs.get(i);
  }

  private static FloatBuffer buffer(MatrixBlock matrix) {
    return matrix == null ? null : FloatBuffer.wrap(floats(matrix));
  }
}
