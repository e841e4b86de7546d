import VarveSystem

/// The owner that a file would have if its maker could give it away: the value of `user.rootlesscontainers`, a protocol
/// buffer `Resource { uint32 uid = 1; uint32 gid = 2; }` (rootlesscontainers/proto), in which the highest number stands
/// for the caller's own id. Other tools (umoci, runROOTLESS, PRoot) read and write it.
struct RootlessOwner: Equatable {
    static let attribute = BytePath("user.rootlesscontainers")
    private static let own = UInt32.max

    /// Nil for root, who is the caller.
    var uid: UInt32?
    var gid: UInt32?

    /// Nil where there is nothing to say: the file is root's.
    init?(uid: UInt32, gid: UInt32) {
        if uid == 0, gid == 0 { return nil }
        self.uid = uid == 0 ? nil : uid
        self.gid = gid == 0 ? nil : gid
    }

    /// proto3: fields of number 1 and 2, each a variable-length integer; those of other numbers are passed over, and one
    /// that is missing is 0. Nil if it is not valid.
    init?(_ value: [UInt8]) {
        var fields: [UInt64: UInt32] = [:]
        var rest = value[...]
        while !rest.isEmpty {
            guard let key = Self.variableLength(&rest) else { return nil }
            switch key & 7 {
            case 0:
                guard let number = Self.variableLength(&rest) else { return nil }
                fields[key >> 3] = UInt32(truncatingIfNeeded: number)
            case 1: guard Self.skip(8, &rest) else { return nil }
            case 2:
                guard let count = Self.variableLength(&rest), Self.skip(count, &rest) else { return nil }
            case 5: guard Self.skip(4, &rest) else { return nil }
            default: return nil
            }
        }
        uid = Self.owner(fields[1])
        gid = Self.owner(fields[2])
    }

    private static func owner(_ field: UInt32?) -> UInt32? {
        let id = field ?? 0
        return id == own || id == 0 ? nil : id
    }

    var encoded: [UInt8] {
        var bytes: [UInt8] = []
        for (field, id) in [(UInt8(1), uid), (UInt8(2), gid)] {
            bytes.append(field << 3)
            var number = id ?? Self.own
            while number >= 0x80 {
                bytes.append(UInt8(truncatingIfNeeded: number) | 0x80)
                number >>= 7
            }
            bytes.append(UInt8(truncatingIfNeeded: number))
        }
        return bytes
    }

    private static func variableLength(_ bytes: inout ArraySlice<UInt8>) -> UInt64? {
        var result: UInt64 = 0
        for shift in stride(from: UInt64(0), to: 64, by: 7) {
            guard let byte = bytes.popFirst() else { return nil }
            result |= UInt64(byte & 0x7f) << shift
            if byte < 0x80 { return result }
        }
        return nil
    }

    private static func skip(_ count: UInt64, _ bytes: inout ArraySlice<UInt8>) -> Bool {
        guard count <= UInt64(bytes.count) else { return false }
        bytes = bytes.dropFirst(Int(count))
        return true
    }
}
