import FuzzTargets
import TestSupport
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

    /// What grows with the square of an input takes 64 times as long for eight times as much.
    @Test(arguments: GrowingInput.all) func takesTimeInProportion(_ input: GrowingInput) throws {
        func seconds(_ count: Int) throws -> Double {
            let bytes = try input.make(count)
            return try ProcessorTime.least {
                let outcome = try input.target.run(bytes)
                if outcome == .taken, !input.isTaken { throw FuzzFinding("\(input): it is taken") }
                if outcome == .refused, input.isTaken { throw FuzzFinding("\(input): it is refused") }
            }
        }
        let (small, large) = (try seconds(input.count), try seconds(input.count * 8))
        #expect(
            ProcessorTime.isInProportion(small, toEightTimesAsMuch: large),
            "\(small) s, and \(large) s for eight times as many")
    }
}
