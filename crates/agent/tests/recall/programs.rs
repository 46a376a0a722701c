//! Programs that know nothing of stubs.

use std::fs;
use std::path::Path;
use std::process::Command;

use isotherm_gate::testing::on_each_fs;

use crate::bench::{Bench, noise};

/// Programs that copy `$1` to `$2`; the first word has to be there.
const COPIES: &[&str] = &[
    "cat $1 > $2",
    "dd if=$1 of=$2 bs=64k status=none",
    "dd if=$1 of=$2 bs=4k iflag=direct status=none",
    "cp $1 $2",
    "cp --sparse=auto $1 $2",
    "cp --sparse=always $1 $2",
    "cp --sparse=never $1 $2",
    "cp --reflink=auto $1 $2",
    "cp --reflink=never $1 $2",
    // Where the file system cannot share blocks cp says so.
    "cp --reflink=always $1 $1.near 2>/dev/null && mv $1.near $2 || cp $1 $2",
    "cp -a $1 $2",
    "cp $1 $1.near && mv $1.near $2",
    "mv $1 $2",
    "install $1 $2",
    "tar -C $(dirname $1) -cf - $(basename $1) | tar -xOf - > $2",
    "tar -S -C $(dirname $1) -cf - $(basename $1) | tar -xOf - > $2",
    "bsdtar -C $(dirname $1) -cf - $(basename $1) | tar -xOf - > $2",
    "cpio --version >/dev/null && cd $(dirname $1) && echo $(basename $1) | cpio -o --quiet | (mkdir $2.d && cd $2.d && cpio -i --quiet) && mv $2.d/* $2 && rmdir $2.d",
    "rsync $1 $2",
    "rsync -S $1 $2",
    "rsync --inplace $1 $2",
    // As root rsync lists the record, and the recall takes it away under its hands.
    "rsync -aX --filter='-x security.bpf.isotherm' $1 $2",
    "busybox cp $1 $2",
    "gzip -c $1 | gunzip -c > $2",
    "git -c core.hooksPath=/ init -q $2.g && git --git-dir=$2.g/.git --work-tree=/ cat-file blob $(git --git-dir=$2.g/.git hash-object -w $1) > $2 && rm -r $2.g",
    "git --version >/dev/null && git -C $(dirname $1) -c init.defaultBranch=m init -q . && git -C $(dirname $1) add $(basename $1) && git -C $(dirname $1) cat-file blob :$(basename $1) > $2; rm -r $(dirname $1)/.git",
    "sqlite3 :memory: \"select writefile('$2', readfile('$1'))\" > /dev/null",
    "zip -q -j $2.zip $1 && unzip -p $2.zip > $2",
    "python3 -c 'import sys; open(sys.argv[2],\"wb\").write(open(sys.argv[1],\"rb\").read())' $1 $2",
    "python3 -c 'import sys, mmap; f=open(sys.argv[1],\"rb\"); open(sys.argv[2],\"wb\").write(mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ)[:])' $1 $2",
    "python3 -c 'import sys, shutil; shutil.copyfile(sys.argv[1], sys.argv[2])' $1 $2",
    "node -e 'require(\"fs\").copyFileSync(process.argv[1], process.argv[2])' $1 $2",
    "perl -MFile::Copy -e 'copy($ARGV[0], $ARGV[1])' $1 $2",
    "qemu-img convert -f raw -O raw $1 $2",
    "losetup --version >/dev/null && d=$(losetup --show -f -r $1) && dd if=$d of=$2 bs=4k status=none; losetup -d $d",
    "unshare -m cat $1 > $2",
    // Whoever answers holds the mount until a moment after the answer.
    "mkdir $2.b && mount --bind $(dirname $1) $2.b && cp $2.b/$(basename $1) $2; for i in 1 2 3 4 5 6 7 8 9; do umount -q $2.b && break; sleep 0.1; done; rmdir $2.b",
    "mount --version >/dev/null && mkdir $2.up $2.wk $2.ov && mount -t overlay overlay -o lowerdir=$(dirname $1),upperdir=$2.up,workdir=$2.wk $2.ov && cat $2.ov/$(basename $1) > $2; umount $2.ov; rm -r $2.up $2.wk $2.ov",
    "mount --version >/dev/null && mkdir $2.up $2.wk $2.ov && mount -t overlay overlay -o lowerdir=$(dirname $1),upperdir=$2.up,workdir=$2.wk $2.ov && python3 -c 'import sys, mmap; f=open(sys.argv[1],\"rb\"); open(sys.argv[2],\"wb\").write(mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ)[:])' $2.ov/$(basename $1) $2; umount $2.ov; rm -r $2.up $2.wk $2.ov",
    // A write to a file of the lower layer copies it up first.
    "mount --version >/dev/null && mkdir $2.up $2.wk $2.ov && mount -t overlay overlay -o lowerdir=$(dirname $1),upperdir=$2.up,workdir=$2.wk $2.ov && chmod 600 $2.ov/$(basename $1) && cp $2.up/$(basename $1) $2; umount $2.ov; rm -r $2.up $2.wk $2.ov",
];

fn is_here(program: &str) -> bool {
    Command::new("sh").args(["-c", "command -v \"$1\" > /dev/null", "sh", program]).status().unwrap().success()
}

fn copy(program: &str, from: &Path, to: &Path) -> Vec<u8> {
    let done = Command::new("sh").arg("-ec").arg(program).arg("sh").args([from, to]).output().unwrap();
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    fs::read(to).unwrap()
}

#[test]
fn programs_that_know_nothing_of_stubs_get_the_content() {
    on_each_fs(96, |volume| {
        let bench = Bench::new(volume);
        // A whole number of sectors, for the loop device.
        let content = noise(299_008, 1);
        for program in COPIES {
            let word = program.split_whitespace().next().unwrap();
            if !is_here(word) {
                println!("skipped on {}: {word} is not on this machine", volume.fs().name());
                continue;
            }
            let file = bench.stub("plan.dwg", &content, 0o644);
            let to = volume.outside().join("copy");
            let seen = copy(program, &bench.path("plan.dwg"), &to);
            assert!(seen == content, "{program} on {:?}: {} bytes, other content", volume.fs(), seen.len());
            assert_eq!(file.record().unwrap(), None, "{program}");
            let _ = fs::remove_file(&to);
            let _ = fs::remove_file(bench.path("plan.dwg"));
        }
        assert_eq!(bench.recall.as_ref().unwrap().problems(), []);
    });
}
