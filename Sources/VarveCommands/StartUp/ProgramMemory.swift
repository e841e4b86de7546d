import CLinux

/// The memory of this program.
enum ProgramMemory {
    /// Gives all variables that begin as zero their memory at once, not at a fault for each page (madvise(2),
    /// MADV_POPULATE_WRITE). The Swift runtime keeps in them what it has looked up, so a program touches nearly all of these
    /// pages soon. It does nothing where the kernel cannot.
    static func populateVariables() { varve_populate_variables() }
}
