# What the guest's kernel offers, and what the product says of it.

machine_facts() {
    local config=/boot/config-$(uname -r)
    say "fact security modules: $(cat /sys/kernel/security/lsm)"
    say "fact kernel: $(grep -E '^CONFIG_(BPF_LSM|FANOTIFY_ACCESS_PERMISSIONS|DEBUG_INFO_BTF|FUNCTION_ERROR_INJECTION)=' "$config" | tr '\n' ' ')"
    say "fact bpf programs of type lsm: $(bpftool feature probe kernel 2>/dev/null | grep -E 'program_type lsm ' | head -n 1)"
    say "fact bpf helper bpf_get_file_xattr: $(bpftool btf dump file /sys/kernel/btf/vmlinux 2>/dev/null | grep -c "FUNC 'bpf_get_file_xattr'") of 1"
    say "fact systemd: $(systemctl --version | head -n 1)"
    say "fact processors: $(nproc), memory $(free -m | awk '/^Mem:/ { print $2 }') MiB"
}

doctor_says_what_is_there() {
    local folder=/mnt/doctor out
    # On the guest's own ext4.
    mkdir -p /var/lib/doctor
    ln -sf /payload/isotherm /usr/bin/isotherm
    mkfs.xfs -q -f /dev/disk/by-id/virtio-cad
    mkdir -p "$folder"
    mount /dev/disk/by-id/virtio-cad "$folder"
    # No service runs yet: what it says of that is not asked about here.
    out=$(isotherm doctor --path "$folder" --path /var/lib/doctor 2>&1) || true
    umount "$folder"
    echo "$out"
    grep -q "kernel.*Linux $(uname -r).*tiering" <<<"$out" || fail "not a word about this kernel and tiering"
    grep -q "guard.*A reader waits" <<<"$out" || fail "it does not find that readers can be made to wait"
    grep -q "privileges.*has all it needs" <<<"$out" || fail "it misses a privilege"
    grep -q "watch.*every change" <<<"$out" || fail "it cannot be told of changes"
    [ "$(grep -c "safety net.*refuses" <<<"$out")" = 2 ] || fail "it does not find that the kernel can refuse: $(grep 'safety net' <<<"$out")"
    note "$(grep -E 'guard' <<<"$out" | tr -s ' ' | head -n 1)"
}
