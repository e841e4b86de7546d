package import SystemPackage

extension Errno {
    /// What the kernel says where nothing lies at a path: part of it is missing (ENOENT), is no directory (ENOTDIR), or is a
    /// symbolic link that is not followed or leads in a circle (ELOOP).
    package var isAbsence: Bool {
        self == .noSuchFileOrDirectory || self == .notDirectory || self == .tooManySymbolicLinkLevels
    }
}
