package codegen;

import java.nio.FloatBuffer;
import org.apache.sysds.runtime.DMLScriptException;
import org.apache.sysds.utils.NativeHelper;
$IMPORTS$

/**
 * A convolution or a matrix product by the native helper (engine/native/helper.cpp), as an operator of the engine.
 *
 * The text is a template: templates.py replaces the names between dollar signs by what one operator needs.
 */
public final class $NAME$ extends SpoofOperator {
  private static final boolean IS_BF16 = $IS_BF16$; // whether activations are kept in bf16
  private static final boolean IS_SUM = $IS_SUM$; // whether it is a sum over pixels, which stays FP32

  $FRAME$

  $HELPER$

  $STORAGE$

  public MatrixBlock execute(ArrayList inputs, ArrayList scalars, MatrixBlock out, int threads) {
    checkHelper();
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
    final boolean joined = images != null && gradient != null && filters != null; // images and gradient side by side
    check("filters", filters, k * k * channels, joined ? count + channels + 1 : count);
    final int rows, columns;
    if (images == null || joined) {
      rows = n * height * width;
      columns = channels;
    } else if (filters == null) {
      rows = k * k * channels;
      columns = count;
    } else {
      rows = n * heightOut * widthOut;
      columns = count;
    }
    final int cells = cells(rows, columns);
    final float[] result = newfloats(IS_BF16 && !IS_SUM ? Math.min(pairs(cells), cells) : cells);
    final float[] factors = filters == null ? null : floats(filters);
    final float[] converted = filters == null || factors == stored(filters) ? null : factors;
    check(NativeHelper.sconv2dBiasAddDense(buffer(images), buffer(gradient),
        factors == null ? null : FloatBuffer.wrap(factors), FloatBuffer.wrap(result), n, channels, height, width, count,
        k, k, stride, stride, (k - 1) / 2, (k - 1) / 2, heightOut, widthOut, threads), rows, columns);
    keep(converted);
    keepTaken(inputs);
    return block(rows, columns, result);
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
    final float[] values = matrix == null ? null : stored(matrix);
    return matrix == null ? null : FloatBuffer.wrap(values != null ? values : floats(matrix));
  }
}
