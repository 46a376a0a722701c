# What all checks use. Lines that are said, each behind a word by which `cargo xtask vm` knows them from the rest:
#   begin KERNEL   fact NAME: TEXT   now NAME   ok|failed|skipped NAME SECONDS TEXT   log TEXT   restart   end

exec 3>/dev/ttyS1

say() { printf 'ISOTHERM %s\n' "$*" >&3; }

# Words of a check: why it fails, why it cannot be, what else is worth knowing. The last line counts.
fail() { echo "why: $*"; exit 1; }
skip() { echo "why: $*"; exit 77; }
note() { echo "why: $*"; }

# check NAME LIMIT FUNCTION: runs it in a process of its own. One that does not come to its end failed, and is left alone
# after a kill: what hangs in the kernel cannot be waited for.
check() {
    is_wanted "$1" || return 0
    run_check "$@"
}

# Whether a check was asked for: a word of the kernel's command line names those that were.
is_wanted() {
    local only
    only=$(sed -n 's/.*isotherm\.only=\([^ ]*\).*/\1/p' /proc/cmdline)
    [ -z "$only" ] || [[ ,$only, == *",$1,"* ]]
}

run_check() {
    local name=$1 limit=$2 work=$3 log=/tmp/check-$1.log began=$EPOCHREALTIME code=0 verdict text
    say "now $name"
    (
        set -euo pipefail
        "$work"
    ) >"$log" 2>&1 3>&- &
    local pid=$!
    until ! kill -0 "$pid" 2>/dev/null || seconds_since "$began" "$limit"; do sleep 0.1; done
    if kill -0 "$pid" 2>/dev/null; then
        code=124
        { echo "Processes that wait:"; stacks; echo "why: not done in $limit s"; } >>"$log" 2>&1
        pkill -KILL -P "$pid"
        kill -KILL "$pid"
        # What the check would have done at its end.
        (nfs_is_left; systemctl kill -s CONT isotherm-service; all_start) >/dev/null 2>&1
    else
        wait "$pid" || code=$?
    fi
    case $code in 0) verdict=ok ;; 77) verdict=skipped ;; *) verdict=failed ;; esac
    text=$(sed -n 's/^why: //p' "$log" | tail -n 1)
    if [ "$verdict" = failed ]; then
        sed 's/^/ISOTHERM log /' "$log" | tail -n 60 >&3
        product_log "${began%.*}" >&3
    fi
    say "$verdict $name $(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }') ${text:-}"
    return "$code"
}

# A check without which nothing else makes sense.
required() {
    if ! run_check "$@"; then
        say "end"
        systemctl poweroff
        exit 1
    fi
}

# Whether so many seconds have passed since then.
seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" -v limit="$2" 'BEGIN { exit !(b - a >= limit) }'; }

# until_true SECONDS WHAT COMMAND...: tries until it succeeds.
until_true() {
    local limit=$1 what=$2 began=$EPOCHREALTIME
    shift 2
    until "$@" >/dev/null 2>&1; do
        if seconds_since "$began" "$limit"; then fail "not in $limit s: $what"; fi
        sleep 0.2
    done
}

# Where processes stand that wait in the kernel.
stacks() {
    local task
    for task in /proc/[0-9]*; do
        case $(sed -n 's/^State:\t\(.\).*/\1/p' "$task/status" 2>/dev/null) in
            D) printf '%s %s\n' "${task#/proc/}" "$(tr '\0' ' ' <"$task/cmdline")"; head -n 8 "$task/stack" 2>/dev/null ;;
        esac
    done
}

# What the product's units have said since then; what is said again and again once.
product_log() {
    journalctl -q --since "@$1" --no-pager -o cat -u 'isotherm-*' | sed 's/^[0-9T:.-]*Z *//' | uniq -c |
        tail -n 15 | sed 's/^/ISOTHERM log /'
}
