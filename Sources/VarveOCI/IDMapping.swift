package import VarveFormats

/// A range of ids in the container and where it lies on the host (runtime-spec config-linux.md, "User namespace
/// mappings").
public struct IDMapping: Hashable, Sendable {
    /// The first id in the image.
    package var containerID: UInt32
    /// The first id on the host.
    package var hostID: UInt32
    /// How many ids there are, at least one.
    package var size: UInt32

    /// Maps `size` ids, one after the other.
    public init(containerID: UInt32, hostID: UInt32, size: UInt32) {
        self.containerID = containerID
        self.hostID = hostID
        self.size = size
    }

    /// `CONTAINER:HOST[:SIZE]`, as umoci's `--uid-map` takes it; the size is 1 unless it is given. Nil for anything else,
    /// and for a range that is empty or goes beyond the highest id.
    package init?(parsing text: String) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2 || parts.count == 3, let container = Self.number(parts[0]),
            let host = Self.number(parts[1]), let size = parts.count == 3 ? Self.number(parts[2]) : 1
        else { return nil }
        self.init(containerID: container, hostID: host, size: size)
        guard isValid else { return nil }
    }

    /// As runtime-spec and umoci.json write it. Nil for anything else.
    package init?(_ json: JSONValue) {
        guard let object = json.object,
            let container = object["containerID"]?.int64.flatMap({ UInt32(exactly: $0) }),
            let host = object["hostID"]?.int64.flatMap({ UInt32(exactly: $0) }),
            let size = object["size"]?.int64.flatMap({ UInt32(exactly: $0) })
        else { return nil }
        self.init(containerID: container, hostID: host, size: size)
        guard isValid else { return nil }
    }

    package var json: JSONValue {
        [
            "containerID": .number(JSONNumber(containerID)), "hostID": .number(JSONNumber(hostID)),
            "size": .number(JSONNumber(size)),
        ]
    }

    /// 4294967295 is no id (chown(2) takes it for "leave it").
    private var isValid: Bool {
        size > 0 && UInt64(containerID) + UInt64(size) <= UInt64(UInt32.max)
            && UInt64(hostID) + UInt64(size) <= UInt64(UInt32.max)
    }

    private static func number(_ text: Substring) -> UInt32? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return UInt32(text)
    }
}

extension [IDMapping] {
    /// The id on the host; nil if no range has it. Without ranges every id stands for itself.
    package func host(_ id: UInt32) -> UInt32? {
        if isEmpty { return id }
        for range in self where id >= range.containerID && id - range.containerID < range.size {
            return range.hostID + (id - range.containerID)
        }
        return nil
    }

    /// The id in the container; nil if no range has it.
    package func container(_ id: UInt32) -> UInt32? {
        if isEmpty { return id }
        for range in self where id >= range.hostID && id - range.hostID < range.size {
            return range.containerID + (id - range.hostID)
        }
        return nil
    }
}
