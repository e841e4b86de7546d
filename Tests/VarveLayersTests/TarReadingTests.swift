import DeltaChecks
import VarveArchive
import VarveLayers
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// What Go's archive/tar, GNU tar and libarchive all read in the same way is taken as they read it; where they differ,
/// it is refused: a layer that is one tree to the scanner and another one to the engine hides something.
@Suite struct TarReadingTests {
    /// Extracts an archive as engines written in Go do, with the library and nothing of its own.
    static let goProgram = #"""
        package main

        import (
        	"archive/tar"
        	"fmt"
        	"io"
        	"os"
        	"path/filepath"
        	"strings"
        	"syscall"
        	"unsafe"
        )

        func check(err error) {
        	if err != nil {
        		fmt.Fprintln(os.Stderr, err)
        		os.Exit(1)
        	}
        }

        func main() {
        	file, err := os.Open(os.Args[1])
        	check(err)
        	reader := tar.NewReader(file)
        	directories := map[string]*tar.Header{}
        	for {
        		header, err := reader.Next()
        		if err == io.EOF {
        			break
        		}
        		check(err)
        		if header.Typeflag == tar.TypeXGlobalHeader {
        			continue
        		}
        		path := filepath.Join(os.Args[2], strings.Trim(filepath.Clean("/"+header.Name), "/"))
        		if path == os.Args[2] && header.Typeflag != tar.TypeDir {
        			check(fmt.Errorf("%q is no name of a file", header.Name))
        		}
        		check(os.MkdirAll(filepath.Dir(path), 0755))
        		status, err := os.Lstat(path)
        		if err == nil && !(status.IsDir() && header.Typeflag == tar.TypeDir) {
        			check(os.RemoveAll(path))
        		}
        		mode := uint32(header.Mode) & 07777
        		device := int(header.Devmajor<<8 | header.Devminor)
        		switch header.Typeflag {
        		case tar.TypeDir:
        			check(os.MkdirAll(path, 0755))
        			directories[path] = header
        		case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
        			out, err := os.Create(path)
        			check(err)
        			_, err = io.Copy(out, reader)
        			check(err)
        			check(out.Close())
        		case tar.TypeSymlink:
        			check(os.Symlink(header.Linkname, path))
        		case tar.TypeLink:
        			check(os.Link(filepath.Join(os.Args[2], filepath.Clean("/"+header.Linkname)), path))
        			continue
        		case tar.TypeChar:
        			check(syscall.Mknod(path, syscall.S_IFCHR|mode, device))
        		case tar.TypeBlock:
        			check(syscall.Mknod(path, syscall.S_IFBLK|mode, device))
        		case tar.TypeFifo:
        			check(syscall.Mkfifo(path, mode))
        		default:
        			check(fmt.Errorf("type %q", header.Typeflag))
        		}
        		check(os.Lchown(path, header.Uid, header.Gid))
        		for key, value := range header.PAXRecords {
        			if strings.HasPrefix(key, "SCHILY.xattr.") {
        				check(syscall.Setxattr(path, key[len("SCHILY.xattr."):], []byte(value), 0))
        			}
        		}
        		if header.Typeflag != tar.TypeSymlink {
        			check(syscall.Chmod(path, mode))
        		}
        		setTime(path, header)
        	}
        	for path, header := range directories {
        		setTime(path, header)
        	}
        }

        func setTime(path string, header *tar.Header) {
        	time := syscall.Timespec{Sec: header.ModTime.Unix(), Nsec: int64(header.ModTime.Nanosecond())}
        	times := [2]syscall.Timespec{time, time}
        	name, err := syscall.BytePtrFromString(path)
        	check(err)
        	const here, noFollow = -100, 0x100
        	at := here
        	_, _, failure := syscall.Syscall6(syscall.SYS_UTIMENSAT, uintptr(at), uintptr(unsafe.Pointer(name)),
        		uintptr(unsafe.Pointer(&times)), noFollow, 0, 0)
        	if failure != 0 {
        		check(failure)
        	}
        }
        """#

    /// Extracts each archive of `in/` with each reader into a directory of its own, beside a file with the exit codes.
    static let script = """
        mkdir go gnu libarchive
        export GO111MODULE=off GOCACHE="${XDG_CACHE_HOME:-/var/cache}/varve-test/go" LC_ALL=C.UTF-8
        go build -o extract main.go
        umask 022
        for archive in in/*; do
            n=${archive#in/}
            mkdir go/$n gnu/$n libarchive/$n
            ./extract $archive go/$n 2>>errors && go=0 || go=$?
            tar --xattrs --xattrs-include='*' --numeric-owner --delay-directory-restore -xpf $archive -C gnu/$n 2>>errors &&
                gnu=0 || gnu=$?
            bsdtar --numeric-owner -xpf $archive -C libarchive/$n 2>>errors && libarchive=0 || libarchive=$?
            for reader in go gnu libarchive; do touch -d @0 $reader/$n; done
            echo $n $go $gnu $libarchive
        done
        """

    @Test("what Go, GNU tar and libarchive read alike is read so, and what they do not is refused")
    func readings() throws {
        let base = try SharedVolume.directory()
        let archives = try base.makeDirectory("in")
        for (index, reading) in TarReadings.all.enumerated() {
            try archives.fd.writeFileDurably(BytePath("\(index)"), reading.archive)
        }
        try base.fd.writeFileDurably("main.go", Array(Self.goProgram.utf8))
        let output = try base.shell(Self.script)
        var counts = (taken: 0, refused: 0)
        var seen = 0
        for line in output.split(separator: "\n") {
            let numbers = line.split(separator: " ").compactMap { Int($0) }
            guard numbers.count == 4 else { continue }
            seen += 1
            let reading = TarReadings.all[numbers[0]]
            let name = BytePath("\(numbers[0])")
            let trees = try ["go", "gnu", "libarchive"].map {
                SharedDescriptor(try base.fd.openDirectory(BytePath($0).appending(name)))
            }
            var differences = [String]()
            if numbers[1...].allSatisfy({ $0 == 0 }) {
                differences += try TreeCompare.differences(trees[0].fd, trees[1].fd)
                differences += try TreeCompare.differences(trees[0].fd, trees[2].fd)
            } else {
                differences.append("exit codes \(numbers[1...])")
            }
            let ours = try base.makeRoot(BytePath("ours\(numbers[0])"))
            var refusal: (any Error)?
            do { try apply(reading.archive, to: ours.fd, isBottom: true) } catch { refusal = error }

            switch (reading.exception, differences.isEmpty) {
            case (nil, true), (.taken, false):
                counts.taken += 1
                if let refusal {
                    Issue.record("\(reading.name): the readers agree, and it is refused: \(refusal)")
                } else if differences.isEmpty {
                    let own = try TreeCompare.differences(trees[0].fd, ours.fd)
                    #expect(own == [], "\(reading.name)")
                }
            case (nil, false), (.refused, true):
                counts.refused += 1
                #expect(
                    refusal is TarError || refusal is LayerError,
                    "\(reading.name): the readers differ: \(differences)")
            case (.taken(let why), true), (.refused(let why), false):
                Issue.record("\(reading.name) is no exception any more: \(why); \(differences)")
            }
        }
        #expect(seen == TarReadings.all.count)
        #expect(counts.taken > 150 && counts.refused > 150)
    }
}
