# An office as administrators set it up: a service, a server with a plain folder (detroit), and one with a guarded volume on
# a disk of its own (munich), all of them systemd's.

plain=/srv/detroit/plans
volume=/srv/cad
stubs=$volume/plans
disk=/dev/disk/by-id/virtio-cad
sums=/var/lib/vm-sums
files=64

office_is_opened() {
    cp /payload/units/*.service /etc/systemd/system/
    ln -sf /payload/isotherm /usr/bin/isotherm
    mkdir -p "$plain" "$volume" /srv/isotherm
    mkfs.xfs -q -f "$disk"
    systemctl daemon-reload
    systemctl enable --quiet --now isotherm-service isotherm-gate
    until_true 30 "the gate answers" isotherm volume list
    isotherm volume add "$(readlink -f "$disk")" "$volume"
    mkdir -p "$stubs"
    systemctl enable --quiet --now isotherm-agent@detroit isotherm-agent@munich
    until_true 30 "the service answers" isotherm group create plans --delete-limit 100%
    until_true 30 "detroit" isotherm endpoint create --group plans --server detroit --path "$plain"
    until_true 30 "munich" isotherm endpoint create --group plans --server munich --path "$stubs" --tiering on
    make_originals
    synced
    until_true 30 "the volume is guarded and answered for" isotherm volume list
    all_are_stubs || fail "what came to the guarded volume is not tiered"
    isotherm recall "$stubs" >/dev/null
    (cd "$stubs" && sha256sum --quiet -c "$sums")
    tier_all 60
    note "$files files, $(du -sm "$plain" | cut -f1) MiB, $(isotherm --version)"
}

# Files of 12 KiB to 1 MiB, and one that takes a while.
make_originals() {
    local at
    for ((at = 0; at < files - 1; at++)); do
        head -c $((12288 + (at * at * 257) % 1036288)) /dev/urandom >"$plain/file-$at"
    done
    head -c $((24 << 20)) /dev/urandom >"$plain/large"
    sums_of_originals
}

sums_of_originals() { (cd "$plain" && sha256sum file-* large >"$sums"); }

# Waits until both servers agree.
synced() { isotherm wait --synced --timeout 100 >/dev/null || fail "not in sync: $(isotherm status 2>&1 | tail -n 5)"; }

originals() { sed 's/^[0-9a-f]*  //' "$sums"; }

all_are_stubs() { ! (cd "$stubs" && originals | xargs stat -c '%b %n') | grep -qv '^0 '; }

tier_is_done() {
    isotherm tier "$stubs" || true
    all_are_stubs
}

# Makes stubs of all originals.
tier_all() { until_true "$1" "all files are tiered" tier_is_done; }

sum_of() { grep "  $1\$" "$sums" | cut -d' ' -f1; }

# is_right FOLDER NAME: its bytes are the original's. A caller that is told to try again does so.
is_right() {
    local out code try
    for ((try = 0; try < 100; try++)); do
        code=0
        out=$(sha256sum "$1/$2" 2>&1) || code=$?
        if [ "$code" = 0 ]; then
            [ "${out%% *}" = "$(sum_of "$2")" ] && return 0
            echo "$1/$2 is not its original: $out"
            return 1
        fi
        case $out in *"Resource temporarily unavailable"*) sleep 0.2 ;; *) echo "$out"; return 1 ;; esac
    done
    echo "$1/$2 stays unavailable"
    return 1
}

# read_all FOLDER: one reader after the other, in an order of its own.
read_all() {
    local name
    for name in $(originals | shuf); do is_right "$1" "$name"; done
}

# read_by COUNT FOLDER: so many readers at once, each reads all.
read_by() {
    local at pids=()
    for ((at = 0; at < $1; at++)); do
        (read_all "$2") &
        pids+=($!)
    done
    for at in "${pids[@]}"; do wait "$at" || fail "a reader of $2 got something else or an error"; done
}

all_is_as_it_was() {
    synced
    read_by 2 "$stubs"
    read_all "$plain"
    [ -z "$(isotherm conflicts 2>&1 | grep -i conflict-)" ] || fail "there are conflict copies"
    isotherm service check --deep >/dev/null || fail "the service lacks something: $(isotherm service check --deep | tail -n 3)"
    note "problems: $(isotherm problems --json | tr -d '\n' | head -c 300)"
}
