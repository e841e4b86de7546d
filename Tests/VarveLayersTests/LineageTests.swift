import Testing
import VarveBtrfs
import VarveLayers

/// What parent UUIDs and transactions say of two trees.
@Suite struct LineageTests {
    struct Case: CustomTestStringConvertible, Sendable {
        var testDescription: String
        /// Name, parent, transaction in which it was made, and that of its last change.
        var old: (name: UInt8, parent: UInt8?, made: UInt64, changed: UInt64)
        var new: (name: UInt8, parent: UInt8?, made: UInt64)
        /// What can be looked up.
        var others: [(name: UInt8, parent: UInt8?, made: UInt64)] = []
        var isUndisturbed = false
        /// Nil for what is not known to descend.
        var since: UInt64?
    }

    @Test(arguments: [
        Case(testDescription: "a snapshot", old: (1, nil, 10, 15), new: (2, 1, 20), since: 20),
        Case(
            testDescription: "a snapshot of what was changed since",
            old: (1, nil, 10, 21), new: (2, 1, 20), since: nil),
        Case(
            testDescription: "what the old tree is a snapshot of", old: (2, 1, 20, 20), new: (1, nil, 10),
            since: 20),
        // Nobody else had a handle in transaction 20 when the snapshot was copied.
        Case(
            testDescription: "the same, of a chain", old: (2, 1, 20, 20), new: (1, nil, 10),
            isUndisturbed: true, since: 21),
        Case(
            testDescription: "the same, where the snapshot was changed", old: (2, 1, 20, 21),
            new: (1, nil, 10), isUndisturbed: true, since: nil),
        Case(
            testDescription: "a later snapshot of the same tree", old: (2, 1, 20, 20), new: (3, 1, 30),
            since: 20),
        Case(
            testDescription: "the same, of a chain", old: (2, 1, 20, 20), new: (3, 1, 30),
            isUndisturbed: true, since: 21),
        Case(
            testDescription: "an earlier snapshot of the same tree", old: (2, 1, 30, 30), new: (3, 1, 20),
            isUndisturbed: true, since: nil),
        Case(
            testDescription: "a snapshot of a later snapshot", old: (2, 1, 20, 20), new: (4, 3, 40),
            others: [(3, 1, 30)], isUndisturbed: true, since: 21),
        Case(
            testDescription: "a snapshot of an earlier snapshot", old: (2, 1, 20, 20), new: (4, 3, 40),
            others: [(3, 1, 15)], isUndisturbed: true, since: nil),
        Case(
            testDescription: "a snapshot of the old tree, as old as one of what that is of",
            old: (2, 1, 20, 20), new: (4, 2, 40), isUndisturbed: true, since: 40),
        Case(testDescription: "trees with no parents", old: (1, nil, 10, 10), new: (2, nil, 20), since: nil),
    ])
    func lineage(_ one: Case) throws {
        func uuid(_ name: UInt8?) throws -> SubvolumeUUID? {
            try name.map { name in try #require(SubvolumeUUID([UInt8](repeating: name, count: 16))) }
        }
        func info(_ name: UInt8, _ parent: UInt8?, _ made: UInt64) throws -> SubvolumeInfo {
            SubvolumeInfo(
                uuid: try #require(try uuid(name)), parentUUID: try uuid(parent), originTransaction: made)
        }
        var old = try info(one.old.name, one.old.parent, one.old.made)
        old.changeTransaction = one.old.changed
        let others = try one.others.map(info)
        let lineage = try Lineage.of(
            old: old, new: info(one.new.name, one.new.parent, one.new.made), isUndisturbed: one.isUndisturbed
        ) { uuid in others.first { $0.uuid == uuid } }
        if case .descends(let since) = lineage {
            #expect(since == one.since)
        } else {
            #expect(one.since == nil)
        }
    }
}
