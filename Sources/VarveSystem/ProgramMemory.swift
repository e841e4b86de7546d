import CLinux

/// Gives all variables of this program that begin as zero their memory at once (madvise(2), MADV_POPULATE_WRITE). It does nothing
/// where the kernel cannot.
package func populateZeroedVariables() { varve_populate_variables() }
