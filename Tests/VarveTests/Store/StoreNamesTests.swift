import VarveFormats
import VarveOCI
import VarveSystem
import TestSupport
import Testing

/// Names of layer prefixes, against the same computed by other programs.
@Suite struct StoreNamesTests {
    @Test func names() throws {
        let world = try StoreWorld()
        let twice = try StoreLayer([.file("a", "a")])
        let layers = try storeSampleLayers() + [twice, try StoreLayer([.file("b", "b")]), twice]
        try world.addImage("image", layers)
        try world.unpack("image")
        // The longest prefix is missing, so that the listing must tell the two apart.
        let chains = try world.chainNames(layers)
        let last = try #require(chains.last)
        let removed = varve("--store", world.storePath, "store", "rm", BytePath(last))
        #expect(removed.code == 0, "\(removed)")

        // What stacker hashes, by sha256sum: the digests up to where the layer stands first.
        let digests = try world.image("image").layers.map(\.digest.description)
        let older = try digests.map { digest in
            let end = try #require(digests.firstIndex(of: digest))
            let text = digests[...end].joined()
            return String(try runSuccessfully(["sha256sum"], input: Array(text.utf8)).outputText.prefix(64))
        }
        try world.shell("mkdir -p roots/\(older[1])")

        let arguments: [BytePath] = [
            "--store", world.storePath, "store", "names", "--image",
            world.layoutPath.appendingBytes(":image"),
        ]
        let table = varve(arguments + ["--no-trunc", "--stacker", world.path.appending("roots")])
        #expect(table.code == 0, "\(table)")
        let lines = table.text.split(separator: "\n").map { $0.split(separator: " ").map(String.init) }
        let expected = chains.indices.map { index in
            [
                "\(index + 1)", chains[index], index == 5 ? "no" : "yes", older[index],
                index == 1 ? "yes" : "no",
            ]
        }
        #expect(lines == [["LAYERS", "CHAIN", "PRESENT", "STACKER", "PRESENT"]] + expected)
        let short = varve(arguments + ["--stacker", world.path.appending("roots")]).text
        #expect(
            short.split(separator: "\n").allSatisfy { $0.count <= 80 } && short.contains(older[1].prefix(12)),
            "\(short)")
        #expect(varve(arguments + ["-q"]).text == chains.map { $0 + "\n" }.joined())

        let json = try JSONValue(parsing: varve(arguments + ["--format", "json"]).output).array
        #expect(json?.last?.object?["stackerName"]?.string == older.last)
        #expect(json?.last?.object?["isPresent"]?.bool == false)
        #expect(json?.first?.object?["chainID"]?.string == "sha256:" + chains[0].dropFirst(7))
    }
}
