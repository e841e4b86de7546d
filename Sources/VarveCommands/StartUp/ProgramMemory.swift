import VarveSystem

/// The memory of this program.
enum ProgramMemory {
    /// Gives all variables that begin as zero their memory at once, not at a fault for each page. The Swift runtime keeps in them what
    /// it has looked up, so a program touches nearly all of these pages soon.
    static func populateVariables() { populateZeroedVariables() }
}
