package codegen;

import java.nio.FloatBuffer;
import org.apache.sysds.runtime.DMLScriptException;
import org.apache.sysds.utils.NativeHelper;
$IMPORTS$

/**
 * A function of dml/layers/pixels/max_pool2d.dml, computed by the native helper (engine/native/pool.h), as an operator
 * of the engine.
 *
 * The text is a template: templates.py replaces the names between dollar signs by what one function needs.
 */
public final class $NAME$ extends SpoofOperator {
  private static final boolean IS_BF16 = $IS_BF16$; // whether values are bf16, not FP32
  private static final boolean BACKWARD = $BACKWARD$;

  $FRAME$

  $HELPER$

  $STORAGE$

  /** Takes X, or dout, out and X in the backward pass, as inputs, and height, width, K and stride as scalars. */
  public MatrixBlock execute(ArrayList inputs, ArrayList scalars, MatrixBlock unused, int threads) {
    checkHelper();
    final MatrixBlock images = (MatrixBlock) inputs.get(inputs.size() - 1);
    final int columns = images.getNumColumns();
    final int height = number(scalars, 0), width = number(scalars, 1), k = number(scalars, 2);
    final int stride = number(scalars, 3);
    final int n = images.getNumRows() / (height * width);
    final int heightOut = (height - 1) / stride + 1, widthOut = (width - 1) / stride + 1; // padding is (k - 1) / 2
    final int rows = BACKWARD ? images.getNumRows() : n * heightOut * widthOut, cells = cells(rows, columns);
    final FloatBuffer[] operands = new FloatBuffer[3];
    for (int i = 0; i < inputs.size(); i++) {
      operands[i] = FloatBuffer.wrap(IS_BF16 ? halves(inputs.get(i)) : floats(inputs.get(i)));
    }
    final float[] result = newfloats(IS_BF16 ? pairs(cells) : cells);
    check(NativeHelper.sconv2dBiasAddDense(operands[0], operands[1], operands[2], FloatBuffer.wrap(result), n, columns,
        height, width, k, -1, $PASS$, IS_BF16 ? 2 : 4, stride, 0, 0, heightOut, widthOut, threads), rows, columns);
    keepTaken(inputs);
    return block(rows, columns, IS_BF16 ? told(result, cells) : result);
  }
}
