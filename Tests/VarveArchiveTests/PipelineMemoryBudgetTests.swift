@testable import VarveArchive
import Glibc
import VarveSystem
import Testing

extension PipelineTests {
    /// Several streams with one budget.
    @Suite struct PipelineMemoryBudgetTests {
        struct Shape: Sendable {
            var streams: Int
            var slabs: Int
            var isObserved = false
        }

        static let shapes = [
            // One slab for all: only the stream being read may have it.
            Shape(streams: 3, slabs: 1), Shape(streams: 3, slabs: 1, isObserved: true),
            Shape(streams: 3, slabs: 2), Shape(streams: 5, slabs: 8, isObserved: true),
            // As many layers as an image can have.
            Shape(streams: 100, slabs: 16),
        ]

        static func streams(_ shape: Shape, _ budget: MemoryBudget) throws -> [(ThreadedSource, [UInt8])] {
            try (0..<shape.streams).map { index in
                let content = sampleBytes(20_000 + index * 1000, seed: UInt64(index + 1))
                let sum = shape.isObserved ? OrderedSum(delay: 10, expected: OrderedSum.of(content)) : nil
                return (try threaded(ArraySource(content), sum, budget), content)
            }
        }

        // As layers are applied. The budget is kept to the slab.
        @Test(arguments: shapes) func inOrder(_ shape: Shape) throws {
            let budget = MemoryBudget(bytes: shape.slabs * 4096, slabSize: 4096)
            for (source, content) in try Self.streams(shape, budget) {
                #expect(try collect(source) == content)
            }
            #expect(budget.peakSlabCount <= shape.slabs)
            #expect(budget.usedSlabCount == 0)
            #expect(eventually { pipelineThreadCount() == 0 })
        }

        // In the order that is worst for the budget: all memory may be with streams that are read last.
        @Test(arguments: shapes) func inReverseOrder(_ shape: Shape) throws {
            let budget = MemoryBudget(bytes: shape.slabs * 4096, slabSize: 4096)
            for (source, content) in try Self.streams(shape, budget).reversed() {
                #expect(try collect(source) == content)
            }
            #expect(budget.peakSlabCount <= shape.slabs)
        }

        // Taking turns, each reader keeps a slab while the next one waits: one slab for each of them at most.
        @Test(arguments: shapes) func interleaved(_ shape: Shape) throws {
            let budget = MemoryBudget(bytes: shape.slabs * 4096, slabSize: 4096)
            let all = try Self.streams(shape, budget)
            var read = [[UInt8]](repeating: [], count: all.count)
            var open = Array(all.indices)
            while !open.isEmpty {
                open.removeAll { index in
                    guard let run = try? unsafe all[index].0.next() else { return true }
                    unsafe read[index].append(contentsOf: run)
                    return unsafe run.isEmpty
                }
            }
            for (index, stream) in all.enumerated() { #expect(read[index] == stream.1) }
            #expect(budget.peakSlabCount <= shape.slabs + shape.streams)
            #expect(budget.usedSlabCount == 0)
        }

        // Several readers on threads of their own.
        @Test(arguments: shapes) func atTheSameTime(_ shape: Shape) throws {
            let budget = MemoryBudget(bytes: shape.slabs * 4096, slabSize: 4096)
            let result = Results()
            let readers = try Self.streams(shape, budget).map { source, content in
                try WorkerThread(name: "reader") { result.add((try? collect(source)) == content ? 1 : 0) }
            }
            for reader in readers { reader.join() }
            #expect(result.values == [Int](repeating: 1, count: shape.streams))
        }

        // One stream feeding another from the same budget.
        @Test(arguments: [1, 2, 8]) func nested(slabs: Int) throws {
            let budget = MemoryBudget(bytes: slabs * 4096, slabSize: 4096)
            let content = sampleBytes(300_000)
            let inner = try ThreadedSource(ArraySource(try encode(content, .gzip)), budget: budget)
            let outer = try ThreadedSource(GzipDecoder(inner), budget: budget)
            #expect(try collect(outer) == content)
        }

        // Streams behind the one being read are filled, the first one first, and leave a quarter of the
        // memory.
        @Test func worksAhead() throws {
            let budget = MemoryBudget(bytes: 16 * 4096, slabSize: 4096)
            let shape = Shape(streams: 3, slabs: 16)
            let all = try Self.streams(shape, budget)
            // Five slabs and a bit each; the second and third fill what they may before anybody reads.
            #expect(eventually { budget.usedSlabCount == 12 })
            usleep(10_000)
            #expect(budget.usedSlabCount == 12)
            for (source, content) in all { #expect(try collect(source) == content) }
            #expect(budget.peakSlabCount <= 16)
        }

        // A stream given up in the middle frees what it has for the others.
        @Test func cancelledStreamFreesMemory() throws {
            let budget = MemoryBudget(bytes: 4 * 4096, slabSize: 4096)
            var all = try Self.streams(Shape(streams: 3, slabs: 4), budget)
            _ = try unsafe all[0].0.next()
            all.removeFirst()
            for (source, content) in all { #expect(try collect(source) == content) }
            #expect(budget.usedSlabCount == 0)
        }

        @Test func roundsSizes() {
            #expect(MemoryBudget(bytes: 0, slabSize: 1).slabCount == 1)
            #expect(MemoryBudget(bytes: 0, slabSize: 1).slabSize == 4096)
            #expect(MemoryBudget(bytes: 64 << 20).slabCount == 256)
        }
    }
}
