import DeltaChecks
import Glibc
import VarveSystem
import SystemPackage
import TestSupport

/// Runs random histories against the oracle until the time is over or one fails: Scripts/fuzz-delta.
struct Arguments {
    var seconds = 60.0
    var seed: UInt64 = 1
    var histories = UInt64.max

    init?(_ words: [String]) {
        var words = words.dropFirst()
        while let word = words.popFirst() {
            guard let value = words.popFirst() else { return nil }
            switch word {
            case "--seconds":
                guard let number = Double(value) else { return nil }
                seconds = number
            case "--seed":
                guard let number = UInt64(value) else { return nil }
                seed = number
            case "--histories":
                guard let number = UInt64(value) else { return nil }
                histories = number
            default: return nil
            }
        }
    }
}

func seconds() -> Double {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

guard let arguments = Arguments(CommandLine.arguments) else {
    print("usage: fuzz-delta [--seconds N] [--seed S] [--histories N]")
    exit(2)
}

func fuzz() throws -> Int32 {
    let volume = try LoopVolume(size: 4 << 30)
    var runner = HistoryRunner(volume: volume.root)
    let check = DeltaCheck()
    let start = seconds()
    var seed = arguments.seed
    var pairs = 0
    var done: UInt64 = 0
    var shown = start
    while seconds() - start < arguments.seconds, done < arguments.histories {
        runner.receives = seed.isMultiple(of: 10)
        let outcome = try runner.run(seed: seed) { try check.check($0, $1, $2) }
        pairs += outcome.pairs
        if let failure = outcome.failure {
            print("seed \(seed) failed: \(failure.pair): \(failure.message)\nshrinking …")
            fflush(nil)
            let smallest = try runner.shrink(failure.history, trials: 400) { try check.check($0, $1, $2) }
            print("the fewest operations that fail:\n\(smallest ?? failure)")
            extendLifetime(volume)
            return 1
        }
        seed += 1
        done += 1
        if seconds() - shown > 10 {
            shown = seconds()
            print("seed \(seed - 1): \(done) histories, \(pairs) pairs, \(check.comparisons) comparisons")
            fflush(nil)
        }
    }
    print(
        "\(done) histories (seeds \(arguments.seed) to \(seed - 1)), \(pairs) pairs, \(check.comparisons) comparisons: no difference"
    )
    for (source, value) in check.unusable.sorted(by: { $0.key < $1.key }) {
        print("not usable: \(source): \(value.count) times, last because \(value.reason)")
    }
    extendLifetime(volume)
    return 0
}

do {
    exit(try fuzz())
} catch {
    print("fuzz-delta: \(error)")
    exit(1)
}
