package import VarveSystem

/// The hooks that there are. The names carry the image format, so that hooks for a later one can stand beside them.
package enum HookName: String, Sendable, CaseIterable {
    case trySkip = "unpack.ociv1.layer.try-skip"
    case extractTo = "unpack.ociv1.layer.extract-to"
    case postExtract = "unpack.ociv1.layer.post-extract"
    case runtimeConfig = "unpack.ociv1.runtime-config"
    case postUnpack = "unpack.ociv1.bundle.post-unpack"
    case deltaList = "repack.ociv1.delta-list"
    case postRepack = "repack.ociv1.bundle.post-repack"
    case preRemove = "bundle.pre-remove"

    /// - Throws: `VarveError`, code `usage`, if there is no such hook.
    package init(named name: String) throws(VarveError) {
        guard let hook = HookName(rawValue: name) else {
            throw VarveError(
                .usage,
                "there is no hook \"\(name)\"; it is one of \(Self.allCases.map(\.rawValue).joined(separator: ", "))"
            )
        }
        self = hook
    }

    /// The most bytes that an answer may have.
    var answerLimit: Int {
        switch self {
        // A line for each changed path, a few hundred bytes long at the most in practice.
        case .deltaList: 512 << 20
        case .trySkip, .extractTo, .runtimeConfig: 16 << 20
        case .postExtract, .postUnpack, .postRepack, .preRemove: 1 << 20
        }
    }
}
