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
        let ranges = [
            IDMapping(containerID: 0, hostID: 1000, size: 2), IDMapping(containerID: 5, hostID: 7, size: 1),
        ]
        for (container, host) in [(0, 1000), (1, 1001), (5, 7)] as [(UInt32, UInt32)] {
            #expect(ranges.host(container) == host && ranges.container(host) == container)
        }
        for id: UInt32 in [2, 4, 6, .max] { #expect(ranges.host(id) == nil) }
        for id: UInt32 in [0, 6, 8, 999, 1002, .max] { #expect(ranges.container(id) == nil) }
        #expect([IDMapping]().host(9) == 9 && [IDMapping]().container(9) == 9, "no map: as it is")
    }
}
