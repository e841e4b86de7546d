import FuzzTargets
import Testing

/// A short run of every fuzz target, the same in each run; Scripts/fuzz goes on from there.
@Suite struct FuzzTests {
    @Test(arguments: FuzzTarget.all) func seeds(_ target: FuzzTarget) throws {
        for seed in target.seeds() { _ = try target.run(seed) }
        for empty in [[], [0], [0xff]] as [[UInt8]] { _ = try target.run(empty) }
    }

    @Test(arguments: FuzzTarget.all) func mutations(_ target: FuzzTarget) throws {
        var mutator = Mutator(seed: 7, corpus: target.seeds())
        var (taken, refused) = (0, 0)
        for round in 0..<400 {
            let input = mutator.next()
            do {
                switch try target.run(input) {
                case .taken: taken += 1
                case .refused: refused += 1
                }
            } catch {
                Issue.record("round \(round): \(error); the input: \(input)")
                return
            }
        }
        // Neither all nor none get through, or the mutations test nothing.
        #expect(taken > 10 && refused > 10, "\(taken) taken, \(refused) refused")
    }
}
