# Gives systemd all fanotify groups of a process to hold, and holds none itself.
#
# pidfd_open, pidfd_getfd and fcntl by their numbers on x86-64: perl-base has nothing else for it.
use strict;
use warnings;

my $process = shift @ARGV;
my $handle = syscall(434, $process + 0, 0);
for my $link (glob "/proc/$process/fd/*") {
    next unless (readlink($link) // '') =~ /fanotify/;
    my ($number) = $link =~ /(\d+)$/;
    my $own = syscall(438, $handle, $number + 0, 0);
    die "pidfd_getfd: $!" if $own < 0;
    # For systemd-notify to inherit.
    syscall(72, $own, 2, 0);
    system('systemd-notify', "--fd=$own", '--fdname=group') == 0 or die "systemd-notify";
    syscall(3, $own);
}
exec 'sleep', 'infinity';
