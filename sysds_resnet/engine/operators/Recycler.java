package codegen;

$IMPORTS$
import org.apache.sysds.runtime.controlprogram.caching.MatrixObject;
import org.apache.sysds.runtime.instructions.cp.ListObject;

/**
 * Hands the arrays of lists that nobody reads any more, such as the moments before an update, to later operators.
 *
 * The text is a template: templates.py replaces the names between dollar signs.
 */
public final class Recycler {
  $STORAGE$

  /** Keeps the arrays of all matrices in some lists for `newfloats`, but for those of matrices in lists to keep. */
  public void recycle(Object[] lists, Object[] kept) {
    final Map used = new IdentityHashMap();
    for (int i = 0; i < kept.length; i++) {
      for (int k = 0; k < ((ListObject) kept[i]).getLength(); k++) {
        used.put(matrix((ListObject) kept[i], k).getDenseBlock(), kept[i]);
      }
    }
    for (int i = 0; i < lists.length; i++) {
      for (int k = 0; k < ((ListObject) lists[i]).getLength(); k++) {
        final MatrixBlock matrix = matrix((ListObject) lists[i], k);
        if (!used.containsKey(matrix.getDenseBlock())) {
          keep(taken(matrix));
        }
      }
    }
  }

  private static MatrixBlock matrix(ListObject list, int i) {
    return (MatrixBlock) ((MatrixObject) list.getData(i)).acquireReadAndRelease();
  }
}
