package import VarveOCI
package import VarveSystem

extension StoreCheck {
    /// What a check found.
    public struct Report: Sendable, CustomStringConvertible {
        /// What is wrong with the store; empty if nothing is.
        public var findings: [Finding]
        /// The chains that were compared with their layers.
        public var compared: [ChainName]
        /// How many chains belong to none of the images that were given. 0 where no comparison was asked for.
        public var uncompared: Int

        package init(findings: [Finding] = [], compared: [ChainName] = [], uncompared: Int = 0) {
            self.findings = findings
            self.compared = compared
            self.uncompared = uncompared
        }

        /// How many findings were not repaired.
        public var left: Int { findings.count { !$0.isRepaired } }

        public var description: String {
            if findings.isEmpty { return "nothing is wrong" }
            return findings.map(\.description).joined(separator: "\n")
        }
    }

    /// Everything that `run` looks at and, with images, also what `compare` does.
    ///
    /// - Parameter images: nil to compare nothing.
    package func report(
        comparingWith images: [ImageSelection]? = nil, cancellation: Cancellation = Cancellation()
    ) throws -> Report {
        var report = Report(findings: try run())
        guard let images else { return report }
        let deep = try compare(with: images, cancellation: cancellation)
        report.findings += deep.findings
        report.compared = deep.compared
        report.uncompared = Set(try store.chains.all().map(\.name)).subtracting(deep.compared).count
        return report
    }
}
