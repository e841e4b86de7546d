import VarveArchive
import VarveOCI
import VarveSystem
import Testing

@testable import VarveLayers

@Suite struct OwnerTests {
    /// Bytes that umoci writes; and what no writer writes, but a reader must take.
    @Test func rootlessOwner() throws {
        #expect(RootlessOwner(uid: 0, gid: 0) == nil, "root needs no attribute")
        let both = try #require(RootlessOwner(uid: 1000, gid: 1001))
        #expect(both.encoded == [0x08, 0xe8, 0x07, 0x10, 0xe9, 0x07])
        let group = try #require(RootlessOwner(uid: 0, gid: 42))
        #expect(group.encoded == [0x08, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x10, 0x2a])
        for owner in [both, group] { #expect(RootlessOwner(owner.encoded) == owner) }
        // A field that is not there is 0, and unknown ones of every wire type are passed over.
        #expect(RootlessOwner([0x10, 7])?.gid == 7)
        #expect(RootlessOwner([])?.uid == nil)
        #expect(
            RootlessOwner([
                0x18, 5, 0x22, 2, 9, 9, 0x2d, 1, 2, 3, 4, 0x31, 1, 2, 3, 4, 5, 6, 7, 8, 0x08, 3,
            ])?.uid == 3)
        for broken: [UInt8] in [
            [0x08], [0x08, 0x80], [0x22, 5, 1], [0x2d, 1], [0x0b], Array(repeating: 0xff, count: 12),
        ] {
            #expect(RootlessOwner(broken) == nil, "\(broken)")
        }
    }

    @Test func acls() throws {
        let value = try #require(
            PosixACL.parse(Array("user::rw-,user:5:r--,group::r--,group:6:rw-,mask::rw-,other::---".utf8))?
                .value().bytes
        )
        let owners = OwnerMapping(
            uids: [IDMapping(containerID: 0, hostID: 100, size: 10)],
            gids: [IDMapping(containerID: 0, hostID: 200, size: 10)])
        let mapped = try #require(try owners.unpackedACL(value, path: "f"))
        #expect(
            mapped
                == PosixACL.parse(
                    Array("user::rw-,user:105:r--,group::r--,group:206:rw-,mask::rw-,other::---".utf8))?
                .value().bytes)
        #expect(try owners.packedACL(mapped, path: "f") == value)
        #expect(throws: LayerError.self) { try owners.packedACL(value, path: "f") }
        // A rootless tree leaves it out, and a layer is not made of one that somebody set by hand.
        let rootless = OwnerMapping(isRootless: true)
        #expect(try rootless.unpackedACL(value, path: "f") == nil)
        #expect(throws: LayerError.self) { try rootless.packedACL(value, path: "f") }
        let plain = try #require(PosixACL.parse(Array("user::rw-,group::r--,other::---".utf8))?.value().bytes)
        #expect(try rootless.unpackedACL(plain, path: "f") == plain)
    }

    /// Each of these makes another tree, so each names another chain; and all are names that a chain can have.
    @Test func variants() {
        let range = IDMapping(containerID: 0, hostID: 1000, size: 1)
        let many = (0..<40).map { IDMapping(containerID: $0 * 10, hostID: 100_000 + $0 * 20, size: 5) }
        let all = [
            OwnerMapping(), OwnerMapping(uids: [range]), OwnerMapping(gids: [range]),
            OwnerMapping(uids: [range], gids: [range]), OwnerMapping(uids: [range], isRootless: true),
            OwnerMapping(uids: [IDMapping(containerID: 0, hostID: 100, size: 1)]),
            OwnerMapping(uids: many), OwnerMapping(gids: many), OwnerMapping(uids: many, isRootless: true),
        ].map(\.variant)
        #expect(Set(all).count == all.count)
        #expect(all[0] == "")
        #expect(all[3] == "-u0-1000-1-g0-1000-1")
        for variant in all {
            #expect(variant.utf8.count <= 120)
            #expect(
                variant.utf8.allSatisfy {
                    $0 == 0x2d || (0x30...0x39).contains($0) || (0x61...0x7a).contains($0)
                })
        }
    }
}
