  // Activations and where they lie. These members are in the classes of all operators; templates.py puts them there.
  //
  // Values are FP64 in matrices of the engine. In results of operators they are FP64, FP32, or bf16 in pairs: an array
  // of floats that has fewer floats than the matrix has values, whose lower halves are the values of even numbers.
  //
  // The helper's passes read and write them as they are. What is converted here is little, but for the tensors of a
  // network in the first step; the loops are plain, because Java's vectors are objects until the JIT knows the loop.

  private static final String KEPT = "sysds_resnet.arrays";
  private static final int LEAST_KEPT = 1 << 16; // the fewest floats that are worth keeping

  private static double[] doubles(Object input) {
    final MatrixBlock matrix = (MatrixBlock) input;
    MatrixBlock block = matrix;
    if (block.isInSparseFormat() || block.getDenseBlock() == null) {
      block = new MatrixBlock(matrix.getNumRows(), matrix.getNumColumns(), false);
      block.copy(matrix, false);
      block.allocateDenseBlock(false);
    }
    return block.getDenseBlockValues();
  }

  /** Gives the values in FP32. */
  private static float[] floats(Object input) {
    final float[] values = stored(input);
    if (values != null) {
      return values.length < cells(input) ? unpacked(values, cells(input)) : values;
    }
    if (((MatrixBlock) input).isEmptyBlock(false)) {
      final float[] zeros = newfloats(cells(input));
      Arrays.fill(zeros, 0);
      return zeros;
    }
    return narrowed(doubles(input));
  }

  /** Gives the values in bf16, in pairs; there is room for them in whole vectors. */
  private static float[] halves(Object input) {
    final float[] values = stored(input);
    if (values != null) {
      return values.length < cells(input) ? values : packed(values);
    }
    final float[] narrow = narrowed(doubles(input)), halves = packed(narrow);
    keep(narrow);
    return halves;
  }

  /** Gives the array in which an operator has left its result, FP32 or bf16, or null for other matrices. */
  private static float[] stored(Object input) {
    final MatrixBlock matrix = (MatrixBlock) input;
    return !matrix.isInSparseFormat() && matrix.getDenseBlock() instanceof Supplier
        ? (float[]) ((Supplier) matrix.getDenseBlock()).get() : null;
  }

  private static int cells(Object input) {
    return ((MatrixBlock) input).getNumRows() * ((MatrixBlock) input).getNumColumns();
  }

  private static float[] narrowed(double[] from) {
    final float[] to = newfloats(from.length);
    for (int i = 0; i < to.length; i++) {
      to[i] = (float) from[i];
    }
    return to;
  }

  private static double[] widened(float[] from, int cells) {
    final double[] to = new double[cells];
    final float[] values = from.length < cells ? unpacked(from, cells) : from;
    for (int i = 0; i < cells; i++) {
      to[i] = values[i];
    }
    return to;
  }

  /** Gives the number of floats for so many bf16 values: in pairs, and with room for whole vectors of them. */
  private static int pairs(int cells) {
    return (cells + 31) / 32 * 16;
  }

  private static float[] packed(float[] from) {
    final float[] to = newfloats(pairs(from.length));
    for (int i = 0; i < from.length; i += 2) {
      final int high = i + 1 < from.length ? rounded(from[i + 1]) : 0;
      to[i / 2] = Float.intBitsToFloat(rounded(from[i]) | high << 16);
    }
    return to;
  }

  private static float[] unpacked(float[] from, int cells) {
    final float[] to = newfloats(cells);
    for (int i = 0; i < cells; i++) {
      final int pair = Float.floatToRawIntBits(from[i / 2]);
      to[i] = Float.intBitsToFloat(i % 2 == 0 ? pair << 16 : pair & 0xffff0000);
    }
    return to;
  }

  /** Gives the 16 bits of the nearest bf16 value, ties to even; NaN stays NaN. */
  private static int rounded(float value) {
    final int bits = Float.floatToIntBits(value);
    return value != value ? 0x7fc0 : bits + 0x7fff + (bits >>> 16 & 1) >>> 16;
  }

  /** Gives bf16 values as they are, or in FP32 where they are too few for their number of floats to tell. */
  private static float[] told(float[] halves, int cells) {
    return halves.length < cells ? halves : unpacked(halves, cells);
  }

  private static MatrixBlock block(int rows, int columns, double[] values) {
    return new MatrixBlock(rows, columns, values);
  }

  /** Makes a matrix of FP32 values, or of bf16 values where there are fewer floats than that. */
  private static MatrixBlock block(int rows, int columns, float[] values) {
    MatrixBlock block = new MatrixBlock(rows, columns, new Floats(rows, columns, values));
    block.setNonZeros((long) rows * columns); // perhaps more than there are, so that the block does not become sparse
    return block;
  }

  /** Gives an array of any values, all of which the caller must overwrite. */
  private static float[] newfloats(int length) {
    final float[] used = length < LEAST_KEPT ? null : (float[]) kept(length).pollFirst();
    return used != null ? used : new float[length];
  }

  /**
   * Takes the array of a matrix that the program does not read any more, and leaves it without values. Gives null for
   * a matrix that is not of these operators, and for one whose array was taken before, as another input.
   */
  private static float[] taken(Object input) {
    final Object block = ((MatrixBlock) input).getDenseBlock();
    if (!(block instanceof Callable)) {
      return null;
    }
    try {
      return (float[]) ((Callable) block).call();
    } catch (Exception e) {
      throw new DMLRuntimeException(e);
    }
  }

  /** Keeps an array for `newfloats`; null is none. */
  private static void keep(float[] values) {
    if (values != null && values.length >= LEAST_KEPT) {
      kept(values.length).addFirst(values);
    }
  }

  /**
   * Gives the arrays of a length that wait to be used again. New ones would be filled with zeros by the JVM, lie in
   * memory that no cache holds, and be copied by the collector. The collector frees those that nobody takes when memory
   * runs short. The class of each operator has a loader of its own, so that they meet at the JVM's properties.
   */
  private static ConcurrentLinkedDeque kept(int length) {
    final Properties shared = System.getProperties();
    synchronized (shared) {
      Map all = (Map) shared.get(KEPT);
      if (all == null) {
        all = new HashMap();
        shared.put(KEPT, all);
      }
      final Reference reference = (Reference) all.get(Integer.valueOf(length));
      ConcurrentLinkedDeque arrays = reference == null ? null : (ConcurrentLinkedDeque) reference.get();
      if (arrays == null) {
        arrays = new ConcurrentLinkedDeque();
        all.put(Integer.valueOf(length), new SoftReference(arrays));
      }
      return arrays;
    }
  }

  /**
   * A dense block whose values are FP32 or bf16, which these operators read as they are (`get`) or take (`call`): each
   * operator has this class in a loader of its own, so that they know it by Java's interfaces. The engine's own
   * operators get FP32 or FP64 values, which are made when they ask for the first time.
   *
   * Many of them take what values(r) gives for the whole block, whereas DenseBlockFP32 gives one row.
   * https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/data/DenseBlockFP32.java
   */
  private static final class Floats extends DenseBlockFP32 implements Supplier, Callable {
    private final int cells;
    private float[] values; // null where they were taken
    private double[] converted;

    Floats(int rows, int columns, float[] values) {
      super(new int[] {rows, columns}, values);
      this.cells = rows * columns;
      this.values = values;
    }

    public synchronized Object get() {
      if (values == null) {
        throw new DMLRuntimeException("found a matrix whose memory an operator has used for its result, expected that "
            + "nobody reads it any more; this is a fault of sysds_resnet, please report it");
      }
      return values;
    }

    public synchronized Object call() {
      final float[] own = values;
      values = null;
      converted = null;
      allocateBlock(0, 0);
      return own;
    }

    public synchronized float[] getData() {
      final float[] own = (float[]) get();
      converted = null; // whoever asks for FP32 values may change them
      return own.length < cells ? unpacked(own, cells) : own;
    }

    public synchronized double[] valuesAt(int block) {
      if (converted == null) {
        converted = widened((float[]) get(), cells);
      }
      return converted;
    }

    public double[] values(int row) {
      return valuesAt(0);
    }

    /** Gives the number of floats that hold the values, or 0 where they were taken. */
    public synchronized long capacity() {
      return values == null ? 0 : values.length;
    }

    public double get(int row, int column) {
      return valuesAt(0)[pos(row, column)];
    }

    public double get(int[] place) {
      return valuesAt(0)[pos(place)];
    }

    protected long computeNnz(int row, int from, int length) {
      long zeros = 0;
      for (int i = from; i < from + length; i++) {
        zeros += valuesAt(0)[i] == 0 ? 1 : 0;
      }
      return length - zeros;
    }
  }
