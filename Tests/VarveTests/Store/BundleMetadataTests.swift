import VarveLayers
import VarveOCI
import VarveStore
import VarveSystem
import Testing

/// `umoci.json`, as this program and others write it.
@Suite struct BundleMetadataTests {
    private static let walk =
        #""from_descriptor_path":{"descriptor_walk":[{"mediaType":"a/b","digest":"sha256:"#
        + String(repeating: "0a", count: 32) + #"","size":7}],"other":1}"#

    private static func parse(_ members: String) throws -> BundleMetadata {
        try BundleMetadata(
            parsing: Array("{\"umoci_version\":\"2\",\(walk),\(members)}".utf8), of: "umoci.json")
    }

    /// What decides how the next layer is made is never guessed.
    @Test(arguments: [
        (#""map_options":{"rootless":"yes"}"#, "its rootless is neither true nor false"),
        (#""varve_keep_dirlinks":1"#, "its varve_keep_dirlinks is neither true nor false"),
        (#""map_options":[]"#, "its map_options are not an object"),
        (#""map_options":{"uid_mappings":{}}"#, "its uid_mappings is not an array"),
        (
            #""map_options":{"gid_mappings":[{"containerID":0,"hostID":4294967295,"size":1}]}"#,
            "a range in its gid_mappings is not valid"
        ),
    ])
    func damaged(members: String, says: String) throws {
        let error = try #require(throws: VarveError.self) { try Self.parse(members) }
        #expect(error.code == .invalidInput)
        #expect(error.description == "\"umoci.json\" is damaged: \(says); unpack the image again")
    }

    @Test("A bundle whose deletions are devices would give a wrong layer")
    func whiteoutMode() throws {
        for members in [#""whiteout_mode":0"#, #""whiteout_mode":null"#, #""x":1"#] {
            #expect(throws: Never.self) { try Self.parse(members) }
        }
        for members in [#""whiteout_mode":1"#, #""whiteout_mode":"overlay""#] {
            let error = try #require(throws: VarveError.self) { try Self.parse(members) }
            #expect(error.code == .unsupported && error.description.contains("overlayfs"))
        }
    }

    @Test("What is not known here stays, where it was")
    func unknownMembers() throws {
        let text =
            "{\"umoci_version\":\"2\",\(Self.walk),\"map_options\":{\"rootless\":true,\"z\":[1.50]},\"y\":null}\n"
        let read = try BundleMetadata(parsing: Array(text.utf8), of: "umoci.json")
        #expect(read.apply.owners.isRootless && read.path.map(\.size) == [7])
        #expect(String(decoding: read.encoded, as: UTF8.self) == text)
    }
}
