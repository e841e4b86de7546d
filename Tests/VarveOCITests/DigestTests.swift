import VarveOCI
import Testing

@Suite struct DigestTests {
    static let hex = String(repeating: "0123456789abcdef", count: 4)

    struct Case: Sendable {
        var text: String
        var isValid: Bool
    }

    @Test(arguments: [
        Case(text: "sha256:" + hex, isValid: true),
        Case(text: "sha512:" + hex + hex, isValid: true),
        // Of the other algorithm's length.
        Case(text: "sha512:" + hex, isValid: false),
        Case(text: "sha256:" + hex + hex, isValid: false),
        // image-spec allows lower case alone, and one blob must have one name.
        Case(text: "sha256:" + hex.uppercased(), isValid: false),
        // A path out of the layout.
        Case(text: "sha256:../../../../../../etc/passwd" + String(repeating: "a", count: 35), isValid: false),
        Case(text: "../sha256:" + hex, isValid: false),
        Case(text: "sha256:" + hex.dropLast() + "/", isValid: false),
        Case(text: "sha256:" + hex.dropLast() + "\0", isValid: false),
        // Not registered: it could not be verified.
        Case(text: "md5:d41d8cd98f00b204e9800998ecf8427e", isValid: false),
        Case(text: "sha256" + hex, isValid: false),
        Case(text: "sha256:", isValid: false),
        Case(text: "", isValid: false),
        // Full-width digits are numbers to Unicode, but not to image-spec.
        Case(text: "sha256:" + hex.dropLast() + "１", isValid: false),
        Case(text: "sha256:" + hex + "\n", isValid: false),
    ])
    func parses(_ test: Case) {
        let digest = Digest(test.text)
        #expect((digest != nil) == test.isValid)
        if let digest { #expect(digest.description == test.text) }
    }

    /// The values are those of sha256sum.
    @Test func chainIDsOfAllPrefixes() {
        let ids = ["a", "b", "c"].map { DiffID(Digest(of: Array($0.utf8))) }
        let chains = ChainID.prefixes(of: ids)
        #expect(
            chains.map(\.description) == [
                "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
                "sha256:51c0c8ace48498d6f5fee6b0592cc06f2da0f3cbe09c5a34a97dce85c3889676",
                "sha256:2fce7f8ce91bcf0a1428b36e1024639fdbd9469eea762dba98aa749631885106",
            ])
        #expect(ChainID.prefixes(of: []).isEmpty)
        #expect(
            chains[0].fileName == "sha256-ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb")
    }

    @Test func hashesInPieces() {
        for algorithm in DigestAlgorithm.allCases {
            var hasher = DigestHasher(algorithm)
            for piece in ["he", "", "llo"] { hasher.update(Array(piece.utf8)) }
            #expect(hasher.finish() == Digest(of: Array("hello".utf8), algorithm: algorithm))
        }
        #expect(
            Digest(of: Array("hello".utf8)).hex
                == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
    }
}
