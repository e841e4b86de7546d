import ArgumentParser
import VarveSystem

/// Completion for the shells: the scripts that they load, and what those ask the command.
///
/// The parser makes such scripts too. They know no names but those that stand in the script; bash's splits a word at each colon, and
/// expands what it was given once more, so a tag such as `$(reboot)` would run.
enum ShellCompletion: String, CaseIterable {
    case bash, zsh, fish

    /// What the scripts ask with. No word of a command begins with three dashes.
    static let request = "---complete"
    static let generate = "--generate-completion-script"

    /// What the command line asks of completion; nil if it asks for something else.
    static func output(for words: [BytePath], _ environment: CommandEnvironment) -> [UInt8]? {
        guard let first = words.first?.string, words.count > 1,
            let shell = words[1].string.flatMap({ Self(rawValue: $0) })
        else { return nil }
        switch first {
        case Self.generate where words.count == 2: return Array(shell.script.utf8)
        case Self.request: return shell.answer(words.dropFirst(2).map { Array($0.bytes) }, environment)
        default: return nil
        }
    }

    /// - Parameter words: for bash the line up to the cursor, and as much of its end as what it gets replaces; for the others all words
    ///   up to the cursor, without quotes, and without the program.
    private func answer(_ words: [[UInt8]], _ environment: CommandEnvironment) -> [UInt8] {
        let line = self == .bash ? ShellLine(parsing: words.first ?? []) : nil
        let texts = (line.map { Array($0.words.dropFirst()) } ?? words).map { ArgumentText.encode($0) }
        guard let current = texts.last else { return [] }
        let completion = Completion(after: texts.dropLast(), current, environment)
        var lines = [Array(completion.files.rawValue.utf8)]
        for candidate in completion.candidates {
            let word = Array(candidate.word.utf8)
            guard let line else {
                let mark = self == .zsh ? (candidate.isWhole ? "-" : "+") : ""
                let about = candidate.about.isEmpty ? "" : "\t" + Self.brief(candidate.about)
                lines.append(Array(mark.utf8) + word + Array(about.utf8))
                continue
            }
            // Bash replaces what stands behind the last of its word breaks, a colon or an equals sign among them.
            let kept = line.lengthOfWord(before: words.count > 1 ? words[1].count : 0)
            let end = candidate.isWhole && line.quote == nil ? [UInt8(ascii: " ")] : []
            lines.append(line.typed(word.dropFirst(kept)) + end)
        }
        return lines.flatMap { $0 + [UInt8(ascii: "\n")] }
    }

    /// The first sentence, for a line of a list.
    private static func brief(_ about: String) -> String {
        let end = about.firstRange(of: ". ")?.lowerBound ?? about.endIndex
        let sentence = about[..<end]
        return String(sentence.hasSuffix(".") ? sentence.dropLast() : sentence)
    }

    private var script: String {
        switch self {
        case .bash: Self.bashScript
        case .zsh: Self.zshScript
        case .fish: Self.fishScript
        }
    }

    private static let bashScript = #"""
        # Completion of varve in bash.
        _varve() {
            local said how
            COMPREPLY=()
            said=$("$1" ---complete bash "${COMP_LINE:0:COMP_POINT}" "$2" 2>/dev/null) || return 0
            [[ -n $said ]] || return 0
            mapfile -t COMPREPLY <<<"$said"
            how=${COMPREPLY[0]}
            COMPREPLY=("${COMPREPLY[@]:1}")
            # Words that are whole come with their space.
            compopt -o nospace
            if [[ ${#COMPREPLY[@]} == 0 ]]; then
                compopt +o nospace
                case $how in
                files) compopt -o default ;;
                directories) compopt -o dirnames ;;
                esac
            fi
        }
        complete -F _varve varve

        """#

    private static let zshScript = #"""
        #compdef varve
        # Completion of varve in zsh.
        _varve() {
            local line how word shown
            local -a before lines whole whole_shown part part_shown
            (( CURRENT > 2 )) && before=("${(@Q)words[2,CURRENT-1]}")
            lines=("${(@f)$("${(Q)words[1]}" ---complete zsh "${before[@]}" "${(Q)PREFIX}" 2>/dev/null)}")
            how=$lines[1]
            shift lines
            for line in "${lines[@]}"; do
                word=${${line#?}%%$'\t'*}
                shown=$word
                [[ $line == *$'\t'* ]] && shown="$word  -- ${line#*$'\t'}"
                if [[ $line == -* ]]; then
                    whole+=("$word") whole_shown+=("$shown")
                else
                    part+=("$word") part_shown+=("$shown")
                fi
            done
            local -i found=1
            (( $#whole )) && compadd -l -d whole_shown -a whole && found=0
            (( $#part )) && compadd -l -d part_shown -S '' -a part && found=0
            if (( ! $#whole && ! $#part )); then
                compset -P '--[^=]#='
                case $how in
                files) _files && found=0 ;;
                directories) _files -/ && found=0 ;;
                esac
            fi
            return found
        }
        if [[ $funcstack[1] == _varve ]]; then
            _varve "$@"
        else
            compdef _varve varve
        fi

        """#

    private static let fishScript = #"""
        # Completion of varve in fish.
        function __varve_complete
            set -l before
            # What gives words without quotes has another name since 4.0.
            if string match --quiet --regex '^[0-3]\.' -- $version
                set before (commandline --tokenize --current-process --cut-at-cursor)
            else
                set before (commandline --tokens-expanded --current-process --cut-at-cursor)
            end
            set -l current (commandline --current-token --cut-at-cursor)
            set -l plain (string unescape -- "$current" 2>/dev/null)
            and set current $plain
            set -l program $before[1]
            set --erase before[1]
            set -l lines (command $program ---complete fish $before "$current" 2>/dev/null)
            or return
            set -l how $lines[1]
            set --erase lines[1]
            if set --query lines[1]
                printf '%s\n' $lines
                return
            end
            set -l stem (string match --regex '^--[^=]*=' -- "$current")
            set -l path (string replace --regex '^--[^=]*=' '' -- "$current")
            switch $how
                case files
                    __fish_complete_path "$path" | string replace --regex '^' "$stem"
                case directories
                    __fish_complete_directories "$path" '' | string replace --regex '^' "$stem"
            end
        end
        complete --command varve --no-files --arguments '(__varve_complete)'

        """#
}
