package codegen;

import java.nio.FloatBuffer;
import org.apache.sysds.runtime.DMLScriptException;
import org.apache.sysds.utils.NativeHelper;
$IMPORTS$

/**
 * A function of dml/layers/pixels/pixelwise.dml, computed in one pass over memory by the native helper
 * (engine/native/passes.h), as an operator of the engine.
 *
 * The text is a template: templates.py replaces the names between dollar signs by what one function needs.
 */
public final class $NAME$ extends SpoofOperator {
  private static final boolean IS_BF16 = $IS_BF16$; // whether values are bf16, not FP32
  private static final int[] OPERANDS = {$OPERANDS$}; // the inputs of shape (M, C); in place, the first is the result
  private static final int[] ROWS = {$ROWS$}; // the inputs of shape (1, C)
  private static final int SUMS = $SUMS$; // number of sums over rows; 0 for a result of the inputs' shape

  $FRAME$

  $HELPER$

  $STORAGE$

  public MatrixBlock execute(ArrayList inputs, ArrayList scalars, MatrixBlock out, int threads) {
    checkHelper();
    final MatrixBlock first = (MatrixBlock) inputs.get(OPERANDS[0]);
    final int rows = first.getNumRows(), columns = first.getNumColumns(), cells = cells(rows, columns);
    final boolean inPlace = TAKEN.length > 0;
    final FloatBuffer[] operands = new FloatBuffer[3];
    final List converted = new ArrayList(); // arrays that no matrix has
    float[] result = SUMS > 0 ? new float[2 * SUMS * columns] : newfloats(inPlace ? 0 : IS_BF16 ? pairs(cells) : cells);
    for (int i = 0; i < OPERANDS.length; i++) {
      final Object input = inputs.get(OPERANDS[i]);
      final float[] values = IS_BF16 ? halves(input) : floats(input);
      if (inPlace && i == 0) {
        result = values;
      } else {
        operands[inPlace ? i - 1 : i] = FloatBuffer.wrap(values);
        if (values != stored(input)) {
          converted.add(values);
        }
      }
    }
    if (ROWS.length > 0) {
      operands[2] = FloatBuffer.wrap(bits(inputs, columns));
    }
    if (inPlace) {
      taken(first);
    }
    final int[] numbers = new int[6]; // the bits of up to three FP64 values, the lower ones first
    for (int i = 0; i < scalars.size(); i++) {
      final long bits = Double.doubleToRawLongBits(((ScalarObject) scalars.get(i)).getDoubleValue());
      numbers[2 * i] = (int) bits;
      numbers[2 * i + 1] = (int) (bits >>> 32);
    }
    check(NativeHelper.sconv2dBiasAddDense(operands[0], operands[1], operands[2], FloatBuffer.wrap(result), rows,
        columns, 1, 1, numbers[0], -1, $PASS$, IS_BF16 ? 2 : 4, numbers[1], numbers[2], numbers[3], numbers[4],
        numbers[5], threads), rows, columns);
    for (int i = 0; i < converted.size(); i++) {
      keep((float[]) converted.get(i));
    }
    keepTaken(inputs);
    if (SUMS == 0) {
      return block(rows, columns, IS_BF16 ? told(result, cells) : result);
    }
    final double[] sums = new double[SUMS * columns];
    for (int i = 0; i < sums.length; i++) {
      final long low = Float.floatToRawIntBits(result[2 * i]) & 0xffffffffL;
      sums[i] = Double.longBitsToDouble(low | (long) Float.floatToRawIntBits(result[2 * i + 1]) << 32);
    }
    final MatrixBlock block = block(SUMS, columns, sums);
    block.recomputeNonZeros();
    return block;
  }

  /** Gives the FP64 values of the rows, one after the other, with the bits of each in two floats. */
  private static float[] bits(ArrayList inputs, int columns) {
    final float[] bits = new float[2 * 3 * columns];
    for (int k = 0; k < ROWS.length; k++) {
      final double[] row = doubles(inputs.get(ROWS[k]));
      for (int i = 0; i < columns; i++) {
        final long value = Double.doubleToRawLongBits(row[i]);
        bits[2 * (k * columns + i)] = Float.intBitsToFloat((int) value);
        bits[2 * (k * columns + i) + 1] = Float.intBitsToFloat((int) (value >>> 32));
      }
    }
    return bits;
  }
}
