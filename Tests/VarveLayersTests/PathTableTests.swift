import Synchronization
import TestSupport
import Testing
import VarveArchive
import VarveOCI
import VarveSystem

@testable import VarveLayers

/// What is remembered of many names, and done once for many names of one file.
@Suite struct PathTableTests {
    private static func paths(_ count: Int, seed: UInt64) -> [[BytePath]] {
        var random = HistoryRandom(seed: seed)
        return (0..<count).map { _ in
            (0..<random.below(6)).map { _ in BytePath("n\(random.below(4))") }
        }
    }

    @Test("A path that was put in is found again, and is the same place each time")
    func places() {
        let table = PathTable()
        var known: [BytePath: PathTable.Place] = [:]
        for components in Self.paths(2_000, seed: 1) {
            let path = BytePath(joining: components)
            let place = table.insert(path)
            #expect(table.insert(components) == place)
            #expect(known[path] == nil || known[path] == place)
            known[path] = place
        }
        #expect(Set(known.values).count == known.count && known.count > 500)
        for (path, place) in known {
            #expect(table.path(of: place) == path)
            #expect(table.components(of: place) == path.components)
        }
        #expect(table.find("other", in: PathTable.root) == nil)
    }

    @Test("A set of paths is one")
    func sets() {
        var set = PathSet()
        var model: Set<BytePath> = []
        for (number, components) in Self.paths(4_000, seed: 2).enumerated() {
            if number % 3 == 0, let name = components.last {
                set.remove(name, in: components.dropLast())
                model.remove(BytePath(joining: components))
            } else if number % 40 == 1 {
                set.insert(components)
                model.insert(BytePath(joining: components))
            }
            #expect(set.contains(components) == model.contains(BytePath(joining: components)))
            let isAbove = (0...components.count).contains {
                model.contains(BytePath(joining: Array(components.prefix($0))))
            }
            #expect(set.contains(atOrAbove: components) == isAbove)
            #expect(set.isEmpty == model.isEmpty)
        }
        var all: Set<BytePath> = []
        set.forEach { all.insert(BytePath(joining: $0)) }
        #expect(all == model && !model.isEmpty)
    }

    /// 20,000 directories in one with a long path took 163 MB.
    @Test("A path takes memory for its own name, however deep it lies")
    func size() {
        let deep = BytePath(
            joining: [BytePath](repeating: BytePath(String(repeating: "d", count: 250)), count: 15))
        let table = PathTable()
        let before = table.size
        for number in 0..<20_000 { _ = table.insert(deep.appending("\(number)")) }
        #expect(table.size - before < 20_000 * 80, "\(table.size)")
    }

    @Test("The names of files with ACLs of named users are counted")
    func namesOfFiles() throws {
        let table = PathTable()
        var acls = NamedACLs(table)
        let entry = TarEntry(path: "f", kind: .regular, mode: 0o644)
        try acls.set(
            [(name: "system.posix_acl_access", text: [1])], of: entry, inode: 7, at: table.insert("f"))
        let deep = table.insert(BytePath(String(repeating: "d/", count: 1_900)))
        // Names of other files cost nothing.
        let before = (acls.size, table.size)
        try acls.add("x", in: deep, ofInode: 8, entry: entry)
        #expect(before == (acls.size, table.size))
        for number in 0..<1_000 { try acls.add(BytePath("\(number)"), in: deep, ofInode: 7, entry: entry) }
        let (counted, taken) = (acls.size - before.0, table.size - before.1)
        #expect(counted >= taken && counted < 1_000 * 80, "\(counted) \(taken)")
        // And there is an end.
        let error = #expect(throws: LayerError.self) {
            try acls.set(
                [(name: "system.posix_acl_access", text: [UInt8](repeating: 1, count: NamedACLs.limit))],
                of: entry, inode: 9, at: table.insert("g"))
        }
        #expect(error.map { "\($0)".contains("64 MiB") } == true)
    }

    @Test("A pair of files with several names is compared once")
    func pairs() throws {
        var old = FileStatus(mode: FileType.regular.rawValue | 0o644)
        var new = old
        (old.device, old.inode, old.linkCount) = (1, 10, 3)
        (new.device, new.inode, new.linkCount) = (2, 20, 3)
        func comparisons(_ pairs: ComparedPairs, _ old: FileStatus, _ new: FileStatus) throws -> Int {
            var count = 0
            for _ in 0..<3 {
                let differs = try pairs.differs(old, new) {
                    count += 1
                    return true
                }
                #expect(differs)
            }
            return count
        }
        let pairs = ComparedPairs(true)
        #expect(try comparisons(pairs, old, new) == 1)
        // Another file of either side is another pair.
        var other = old
        other.inode = 11
        #expect(try comparisons(pairs, other, new) == 1)
        other = new
        other.device = 3
        #expect(try comparisons(pairs, old, other) == 1)
        // What is kept of files with one name would be of use to nobody; and some trees make up their numbers.
        other.linkCount = 1
        #expect(try comparisons(pairs, old, other) == 3)
        #expect(try comparisons(ComparedPairs(false), old, new) == 3)
    }

    @Test("A file with several names is read once")
    func digests() throws {
        let linked = LinkedDigests()
        var status = FileStatus(mode: FileType.regular.rawValue | 0o644)
        func reads() throws -> Int {
            var count = 0
            for _ in 0..<3 {
                let digest = try linked.digest(status) { () throws(LayerError) in
                    count += 1
                    return Digest(of: [UInt8(status.inode)])
                }
                #expect(digest == Digest(of: [UInt8(status.inode)]))
            }
            return count
        }
        for (inode, links, wanted) in [(1, 2, 1), (2, 5, 1), (3, 1, 3)] as [(UInt64, UInt64, Int)] {
            (status.inode, status.linkCount) = (inode, links)
            #expect(try reads() == wanted)
        }
    }
}
