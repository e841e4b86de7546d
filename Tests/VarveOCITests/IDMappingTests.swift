import TestSupport
import VarveOCI
import Testing

@Suite struct IDMappingTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var text: String
        var mapping: IDMapping?
        var testDescription: String { text }
    }

    @Test(arguments: [
        Case(text: "0:100000:65536", mapping: IDMapping(containerID: 0, hostID: 100_000, size: 65536)),
        // umoci takes the size to be 1.
        Case(text: "7:8", mapping: IDMapping(containerID: 7, hostID: 8, size: 1)),
        Case(text: "0:4294967294:1", mapping: IDMapping(containerID: 0, hostID: 4_294_967_294, size: 1)),
        // No id may be 4294967295, a range has at least one, and nothing but digits is a number.
        Case(text: "0:4294967295:1"), Case(text: "4294967290:0:6"), Case(text: "0:0:0"), Case(text: "0"),
        Case(text: "0:1:2:3"), Case(text: "-1:0:1"), Case(text: "+1:0:1"), Case(text: ":1:1"),
        Case(text: "0:99999999999:1"),
        Case(text: ""),
    ])
    func parses(_ test: Case) {
        #expect(IDMapping(parsing: test.text) == test.mapping)
        if let mapping = test.mapping { #expect(IDMapping(mapping.json) == mapping) }
    }

    @Test func mapsBothWays() {
        let map = IDMap([
            IDMapping(containerID: 5, hostID: 7, size: 1), IDMapping(containerID: 0, hostID: 1000, size: 2),
        ])
        for (container, host) in [(0, 1000), (1, 1001), (5, 7)] as [(UInt32, UInt32)] {
            #expect(map.host(container) == host && map.container(host) == container)
        }
        for id: UInt32 in [2, 4, 6, .max] { #expect(map.host(id) == nil) }
        for id: UInt32 in [0, 6, 8, 999, 1002, .max] { #expect(map.container(id) == nil) }
        #expect(IDMap([]).host(9) == 9 && IDMap([]).container(9) == 9, "no map: as it is")
    }

    /// What the definition says: the first range that has the id, of all in their order.
    private func reference(_ id: UInt32, _ ranges: [IDMapping], toHost: Bool) -> UInt32? {
        for range in ranges {
            let (from, to) =
                toHost ? (range.containerID, range.hostID) : (range.hostID, range.containerID)
            if id >= from, id - from < range.size { return to + (id - from) }
        }
        return nil
    }

    @Test("Of ranges that overlap, the first one counts") func overlapping() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<200 {
            let ranges = (0..<Int.random(in: 1...12, using: &random)).map { _ in
                IDMapping(
                    containerID: .random(in: 0...40, using: &random),
                    hostID: .random(in: 0...40, using: &random),
                    size: .random(in: 1...20, using: &random))
            }
            let map = IDMap(ranges)
            for id: UInt32 in 0...70 {
                #expect(map.host(id) == reference(id, ranges, toHost: true), "\(id) of \(ranges)")
                #expect(map.container(id) == reference(id, ranges, toHost: false), "\(id) of \(ranges)")
            }
        }
        let high = [
            IDMapping(containerID: .max - 2, hostID: 5, size: 2),
            IDMapping(containerID: 0, hostID: 9, size: .max),
        ]
        #expect(IDMap(high).host(.max - 1) == 6 && IDMap(high).host(.max - 3) == 9 &+ (.max - 3))
    }

    /// With the most ranges that are taken, each look-up is one of halves.
    @Test("The time of a look-up does not grow with the number of ranges") func manyRanges() {
        func time(_ count: Int) -> Double {
            let map = IDMap(
                (0..<UInt32(count)).map { IDMapping(containerID: $0 * 2, hostID: 9_000 + $0 * 2, size: 1) })
            #expect(map.host(UInt32(count - 1) * 2) == 9_000 + UInt32(count - 1) * 2)
            return ProcessorTime.least {
                var found: UInt32 = 0
                for turn in 0..<100_000 { found &+= map.host(UInt32(turn % count) * 2) ?? 0 }
                #expect(found > 0)
            }
        }
        let (few, many) = (time(10), time(IDMap.limit))
        // 34 times as many ranges; looked for one by one, that takes some 30 times as long.
        #expect(many <= 10 * few, "\(few) \(many)")
    }

    @Test("More ranges than the kernel takes are no map") func tooMany() {
        let ranges = (0...UInt32(IDMap.limit)).map { IDMapping(containerID: $0, hostID: $0, size: 1) }
        #expect(IDMap(ranges).count == IDMap.limit + 1)
        #expect(IDMap(ranges).host(0) == nil && IDMap(ranges).container(0) == nil)
        #expect(IDMap(Array(ranges.dropLast())).host(339) == 339)
    }
}
