  // Activations and where they lie. These members are in the classes of all operators; templates.py puts them there.
  //
  // Values are FP64 in matrices of the engine. In results of operators they are FP64, FP32, or bf16 in pairs: an array
  // of floats that has fewer floats than the matrix has values, whose lower halves are the values of even numbers.

  private static final VectorSpecies DOUBLES = DoubleVector.SPECIES_PREFERRED;
  private static final VectorSpecies FLOATS = FloatVector.SPECIES_PREFERRED, INTS = IntVector.SPECIES_PREFERRED;
  private static final int LENGTH = FLOATS.length();
  private static final VectorSpecies HALF = LENGTH == 16 ? FloatVector.SPECIES_256
      : LENGTH == 8 ? FloatVector.SPECIES_128 : FloatVector.SPECIES_64; // as many lanes as DOUBLES has
  private static final VectorSpecies SHORTS = LENGTH == 16 ? ShortVector.SPECIES_256
      : LENGTH == 8 ? ShortVector.SPECIES_128 : ShortVector.SPECIES_64; // as many lanes as FLOATS has
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
    if (values == null) {
      return narrowed(doubles(input));
    }
    return values.length < cells(input) ? unpacked(values, cells(input)) : values;
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
    final int lanes = DOUBLES.length();
    int i = 0;
    for (; i <= to.length - lanes; i += lanes) {
      ((FloatVector) DoubleVector.fromArray(DOUBLES, from, i).convertShape(VectorOperators.D2F, HALF, 0))
          .intoArray(to, i);
    }
    for (; i < to.length; i++) {
      to[i] = (float) from[i];
    }
    return to;
  }

  private static double[] widened(float[] from, int cells) {
    final double[] to = new double[cells];
    final float[] values = from.length < cells ? unpacked(from, cells) : from;
    final int lanes = DOUBLES.length();
    int i = 0;
    for (; i <= cells - lanes; i += lanes) {
      ((DoubleVector) FloatVector.fromArray(HALF, values, i).convertShape(VectorOperators.F2D, DOUBLES, 0))
          .intoArray(to, i);
    }
    for (; i < cells; i++) {
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
    int i = 0;
    for (; i <= from.length - LENGTH; i += LENGTH) {
      pack(FloatVector.fromArray(FLOATS, from, i), to, i);
    }
    if (i < from.length) {
      pack(FloatVector.fromArray(FLOATS, from, i, FLOATS.indexInRange(i, from.length)), to, i);
    }
    return to;
  }

  private static float[] unpacked(float[] from, int cells) {
    final float[] to = newfloats(cells);
    int i = 0;
    for (; i <= cells - LENGTH; i += LENGTH) {
      unpack(from, i).intoArray(to, i);
    }
    if (i < cells) {
      unpack(from, i).intoArray(to, i, FLOATS.indexInRange(i, cells));
    }
    return to;
  }

  /** Writes a vector as bf16 values, rounded to the nearest, ties to even, from the i-th value on; i is even. */
  private static void pack(FloatVector values, float[] to, int i) {
    final IntVector bits = values.blend(Float.NaN, values.compare(VectorOperators.NE, values)).reinterpretAsInts();
    final IntVector odd = bits.lanewise(VectorOperators.LSHR, 16).lanewise(VectorOperators.AND, 1);
    final IntVector rounded = bits.add(odd).add(0x7fff).lanewise(VectorOperators.LSHR, 16);
    ((ShortVector) rounded.convertShape(VectorOperators.I2S, SHORTS, 0)).reinterpretAsFloats().intoArray(to, i / 2);
  }

  /** Reads a vector of bf16 values from the i-th one on; i is even. */
  private static FloatVector unpack(float[] from, int i) {
    final ShortVector halves = FloatVector.fromArray(HALF, from, i / 2).reinterpretAsShorts();
    return ((IntVector) halves.convertShape(VectorOperators.S2I, INTS, 0)).lanewise(VectorOperators.LSHL, 16)
        .reinterpretAsFloats();
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
            + "nobody reads it any more; this is a fault of sysds_resnet/engine/operators/table.py");
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
