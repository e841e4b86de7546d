import VarveFormats
import VarveOCI
import VarveSystem
import Testing

@testable import VarveCommands

@Suite struct CommandsImageTests {
    @Test func layouts() throws {
        let directory = try TemporaryDirectory()
        let layout = directory.path.appending("a/L")
        #expect(varve("init", "--layout", layout).code == 0)
        let again = varve("init", "--layout", layout)
        #expect(
            again.code == 1
                && again.errorText
                    == "varve: cannot make an image layout at \(layout): there is something in it already\n"
        )

        let image = layout.appendingBytes(":one")
        let date = ["SOURCE_DATE_EPOCH": "1700000000"]
        for name in [image, layout] { #expect(varve(["new", "--image", name], variables: date).code == 0) }
        #expect(varve("tag", "--image", image, "two").code == 0)
        #expect(varve("ls", "--layout", layout).text == "one\nlatest\ntwo\n")
        #expect(varve("list", "--layout", layout, "-q").text == "one\nlatest\ntwo\n")
        #expect(
            try JSONValue(parsing: varve("ls", "--layout", layout, "--format", "json").output).array?
                .compactMap { $0.object?["name"]?.string } == ["one", "latest", "two"])
        // The same date gives the same image.
        let resolved = try ["one", "latest"].map {
            try ImageLayout.resolve(ImageReference(path: layout, tag: $0)).manifestDescriptor.digest
        }
        #expect(resolved[0] == resolved[1])

        #expect(varve("rm", "--image", image).code == 0)
        #expect(varve("remove", "--image", layout).code == 0)
        #expect(varve("ls", "--layout", layout).text == "two\n")
        let gone = varve("rm", "--image", image)
        #expect(gone.code == 4)
        #expect(
            gone.errorText
                == "varve: there is no tag \"one\" in the image layout \(layout); varve ls --layout \(layout) lists them\n"
        )
        let missing = varve("tag", "--image", image, "three")
        #expect(
            missing.code == 4
                && missing.errorText
                    == "varve: there is no tag \"one\" in the image layout \(layout): it has two\n"
        )
        #expect(varve("tag", "--image", layout.appendingBytes(":two"), "a b").code == 2)
    }

    @Test func noLayout() throws {
        let directory = try TemporaryDirectory()
        let missing = varve("ls", "--layout", directory.path.appending("L"))
        #expect(missing.code == 4 && missing.errorText.contains("; make one with: varve init --layout "))
        let other = varve("stat", "--image", directory.path)
        #expect(
            other.code == 3
                && other.errorText
                    == "varve: \(directory.path) is no image layout: it has no file named oci-layout\n"
        )
    }

    /// A path that is not UTF-8 is taken as it is.
    @Test func bytesInPaths() throws {
        let directory = try TemporaryDirectory()
        let layout = directory.path.appending(try #require(BytePath([0x4c, 0xff] as [UInt8])))
        #expect(varve("init", "--layout", layout).code == 0)
        #expect(varve("new", "--image", layout.appendingBytes(":x")).code == 0)
        #expect(varve("ls", "--layout", layout).text == "x\n")
        #expect(varve("stat", "--image", layout.appendingBytes(":y")).errorText.contains("/L\\xff: it has x"))
    }

    /// A tag of an index for several platforms is copied as the index that it is.
    @Test func tagOfAnIndex() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path.appending("L")
        let layout = try ImageLayout.create(at: path)
        let foreign = Platform(os: "linux", architecture: "made-up")
        let manifest = try layout.newImage(tag: "inner", platform: foreign, created: .epoch)
        let index: JSONObject = [
            "schemaVersion": 2, "mediaType": .string(MediaType.ociIndex),
            "manifests": [.object(manifest.json)],
        ]
        let descriptor = try layout.putJSON(index, mediaType: MediaType.ociIndex)
        try layout.tag("multi", descriptor)
        #expect(varve("tag", "--image", path.appendingBytes(":multi"), "copy").code == 0)
        let copied = try layout.index().entries.compactMap { try? Descriptor($0, of: "") }.first {
            $0.referenceName == "copy"
        }
        #expect(copied?.digest == descriptor.digest && copied?.mediaType == MediaType.ociIndex)
    }

    @Test func stat() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path.appending("L")
        let layout = try ImageLayout.create(at: path)
        var mutation = ImageMutation(emptyFor: .host, created: .epoch)
        let digest = Digest(of: "layer".utf8)
        try mutation.append(
            layer: Descriptor(mediaType: LayerCompression.gzip.mediaType, digest: digest, size: 27_097_408),
            diffID: DiffID(digest),
            history: HistoryEntry(created: "2020-01-02T03:04:05Z", createdBy: "make\tit", comment: "base"))
        mutation.append(
            history: HistoryEntry(
                created: "2020-01-02T03:04:06Z", createdBy: "umoci config", isEmptyLayer: true))
        try layout.tag("a", try mutation.commit(to: layout))
        let table = varve("stat", "--image", path.appendingBytes(":a"))
        #expect(
            table.text.hasPrefix(
                "== MANIFEST ==\nSchema Version: 2\nMedia Type: \(MediaType.ociManifest)\nConfig:\n\tDescriptor:\n"
            ))
        #expect(
            table.text.contains(
                "\n== CONFIG ==\nCreated: 1970-01-01T00:00:00Z\nAuthor: \"\"\nPlatform:\n\tOS: linux\n"))
        #expect(
            table.text.hasSuffix(
                """

                == HISTORY ==
                LAYER                                                                   CREATED              CREATED BY   SIZE   COMMENT
                \(digest) 2020-01-02T03:04:05Z "make\\tit"   27.1MB base
                <none>                                                                  2020-01-02T03:04:06Z umoci config <none>\(" ")

                """))
        let json = varve("stat", "--json", "--image", path.appendingBytes(":a")).text
        #expect(
            json.hasPrefix("{\"manifest\":{\"descriptor\":{\"mediaType\":")
                && json.contains(",\"history\":[{\"layer\":{\"mediaType\":")
                && json.hasSuffix("\"empty_layer\":true}]}\n"))
    }

    @Test func collect() throws {
        let directory = try TemporaryDirectory()
        let layout = directory.path.appending("L")
        #expect(varve("init", "--layout", layout).code == 0)
        #expect(varve("new", "--image", layout).code == 0)
        #expect(varve("rm", "--image", layout).code == 0)
        let quiet = varve("gc", "--layout", layout)
        #expect(quiet.code == 0 && quiet.errors.isEmpty && quiet.output.isEmpty)
        let told = varve("--log", "info", "gc", "--layout", layout)
        #expect(told.errorText == "varve: info: removed 0 blobs of 0 bytes from \"\(layout)\", kept 0\n")
    }
}
