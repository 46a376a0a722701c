//! `isotherm demo`: a service and two sites on this machine, to look at and to play with.
//!
//! It adds nothing to the product: service and agents are the real ones, and what it shows comes from the management
//! API. Where volumes can be guarded each site has one, which is smaller than the share. It runs without root too; then nothing is tiered,
//! the sites look for changes every few seconds, and it says so.
//!
//! **Invariant:** stopped at any moment and started again on the same folder, it goes on where it was.

mod drawings;
mod events;
mod lines;
mod parts;
mod samples;
mod screen;
mod tiering;
mod view;
mod volumes;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use isotherm_api::Client;
use isotherm_api::management::{EndpointChange, NewEndpoint, NewGroup};
use isotherm_api::sync::InitialUpload;
use isotherm_core::name::Case;

use crate::args::{Demo, LogLevel};
use crate::failure::{Exit, Failure, show_path};
use crate::output::{self, Answer};
use crate::{log, run};
use events::{Event, Events, Picture, Site, SiteStatus, SiteVolume};
use parts::Parts;
use screen::Screen;
use tiering::Tiering;
use view::View;

/// The two sites. Everybody who looks at the screen sees them as far apart.
const SITES: [&str; 2] = ["detroit", "munich"];
/// The sync group that both belong to.
const GROUP: &str = "demo";
/// How often the picture is taken anew.
const REFRESH: Duration = Duration::from_millis(250);
/// How often the sites' agents are asked what is on their volumes.
const LOOK: Duration = Duration::from_secs(1);
/// How long the sites may take to report for the first time.
const START_PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(demo: Demo) -> Result<Answer, Failure> {
    let (stop, closed) = (run::stop_signal(), run::terminal_closed());
    let folders = Folders::make(&demo.dir)?;
    let screen = if demo.json { None } else { Screen::enter() };
    let sink = match &screen {
        Some(_) => log::Sink::File(folders.log_file()?),
        None => log::Sink::Stderr,
    };
    log::start(if screen.is_some() { LogLevel::Info } else { LogLevel::Warn }, sink);
    let mut show = Show::new(demo.json, screen);
    let (mut parts, mut tiering) = (Parts::default(), Tiering::of(&demo, &folders.base));
    let ended = tokio::select! {
        ended = play(&folders, &mut parts, &mut tiering, &mut show) => ended,
        () = stop => Ok(()),
        () = closed => Ok(()),
    };
    let stopped = parts.stop().await;
    // Last: agents answer for what is on the volumes.
    let detached = tiering.end().await;
    show.leave();
    ended.and(stopped).and(detached)?;
    output::print(&show.text(&Event::Stopped))?;
    Ok(String::new().into())
}

/// Starts everything, then shows what happens until nobody looks any more or a part ends.
async fn play(folders: &Folders, parts: &mut Parts, tiering: &mut Tiering, show: &mut Show) -> Result<(), Failure> {
    // First: it has the folder for itself from then on.
    let client = parts.start_service(&folders.data("service")).await?;
    let is_new = !client.groups().await?.iter().any(|group| group.name == GROUP);
    tiering.prepare(is_new).await?;
    if is_new {
        prepare_share(&client, folders).await?;
    }
    for site in SITES {
        let state = folders.data(site);
        parts.start_agent(&state, &tiering.run_folder(&state), client.url(), site);
    }
    let started = async {
        prepare_endpoints(&client, folders, is_new, tiering).await?;
        wait_for_reports(&client).await
    };
    tokio::select! {
        started = started => started?,
        ended = parts.ended() => return ended,
    }
    let ready = Event::Ready { service: client.url().to_owned(), sites: folders.sites() };
    let mut events = Events::default();
    let first = picture(&client, tiering, Vec::new()).await?;
    let why_not = tiering.why_not().map(|why| Event::Untiered { why: why.to_owned() });
    if !show.happened(&first, [Some(ready), why_not].into_iter().flatten().collect())? {
        return Ok(());
    }
    tiering.begin_drawings();
    let (mut volumes, mut looked) = (Vec::new(), None::<Instant>);
    loop {
        tiering.failed().await?;
        if looked.is_none_or(|at| at.elapsed() >= LOOK) {
            volumes = tiering.look().await;
            looked = Some(Instant::now());
        }
        let picture = picture(&client, tiering, volumes.clone()).await?;
        let new = events.compare(&picture);
        if !show.happened(&picture, new)? {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(REFRESH) => {}
            ended = parts.ended() => return ended,
        }
    }
}

/// Makes the group and the sample drawings on the first start.
async fn prepare_share(client: &Client, folders: &Folders) -> Result<(), Failure> {
    samples::write(&folders.site(SITES[0]))?;
    let group = NewGroup {
        name: GROUP.to_owned(),
        case: Case::Sensitive,
        quota: None,
        exclusions: Vec::new(),
        max_delete_fraction: None,
        keep: isotherm_api::management::KeepChange::default(),
    };
    client.create_group(&group).await?;
    Ok(())
}

/// Makes the endpoints that are missing, as soon as their servers are known.
async fn prepare_endpoints(client: &Client, folders: &Folders, is_new: bool, tiering: &Tiering) -> Result<(), Failure> {
    let there = if is_new { Vec::new() } else { client.endpoints().await? };
    for site in folders.sites() {
        match there.iter().find(|endpoint| endpoint.server == site.name) {
            Some(endpoint) if endpoint.path == site.path => {
                // An earlier release may have made it.
                let change = EndpointChange { policy: tiering.policy(), ..EndpointChange::default() };
                client.change_endpoint(endpoint.id, &change).await?;
                continue;
            }
            Some(endpoint) => {
                let why =
                    format!("The demo was made at {} and is now at {}", output::text(&endpoint.path), output::text(&site.path));
                return Err(Failure::new(Exit::Refused, why).with_remedy("Move it back, or give another folder with --dir"));
            }
            None => {}
        }
        wait_until(client, &format!("Server {} does not connect", site.name), async |client: &Client| {
            Ok(client.servers().await?.iter().any(|server| server.name == site.name))
        })
        .await?;
        let endpoint = NewEndpoint {
            group: GROUP.to_owned(),
            server: site.name,
            path: site.path,
            initial_upload: InitialUpload::Merge,
            tiering: tiering.is_on(),
            policy: tiering.policy(),
        };
        client.create_endpoint(&endpoint).await?;
    }
    Ok(())
}

/// From then on no change of a file is missed.
async fn wait_for_reports(client: &Client) -> Result<(), Failure> {
    wait_until(client, "The sites do not report", async |client: &Client| {
        let status = client.status().await?;
        let endpoints: Vec<_> = status.groups.iter().flat_map(|group| &group.endpoints).collect();
        Ok(endpoints.len() == SITES.len() && endpoints.iter().all(|one| one.report.is_some()))
    })
    .await
}

async fn wait_until(client: &Client, why: &str, check: impl AsyncFn(&Client) -> Result<bool, Failure>) -> Result<(), Failure> {
    let waiting = async {
        while !check(client).await? {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    };
    match tokio::time::timeout(START_PATIENCE, waiting).await {
        Ok(done) => done,
        Err(_) => Err(Failure::failed(why).with_remedy("Look at what was logged; if nothing helps, start with another --dir")),
    }
}

async fn picture(client: &Client, tiering: &Tiering, volumes: Vec<SiteVolume>) -> Result<Picture, Failure> {
    let status = client.status().await?;
    let conflicts = client.conflicts(GROUP).await?;
    let problems = client.problems().await?;
    Ok(Picture { status, conflicts, problems, volumes, drawings: tiering.drawn() })
}

/// Where everything is.
#[derive(Debug)]
struct Folders {
    base: PathBuf,
}

impl Folders {
    fn make(dir: &Path) -> Result<Self, Failure> {
        let make = |path: &Path| std::fs::create_dir_all(path).map_err(|error| Failure::io("make", path, &error));
        make(dir)?;
        // An endpoint's path may hold no symlink.
        let base = dir.canonicalize().map_err(|error| Failure::io("find", dir, &error))?;
        if base.to_str().is_none() {
            return Err(Failure::new(Exit::Usage, format!("Folder {} is not UTF-8", show_path(&base))));
        }
        let folders = Self { base };
        make(&folders.data("service"))?;
        for site in SITES {
            make(&folders.site(site))?;
            make(&folders.data(site))?;
        }
        Ok(folders)
    }

    /// What people of a site work on.
    fn site(&self, site: &str) -> PathBuf {
        self.base.join(site)
    }

    /// What service and agents keep for themselves.
    fn data(&self, part: &str) -> PathBuf {
        self.base.join("data").join(part)
    }

    fn sites(&self) -> Vec<Site> {
        let site = |name: &str| Site { name: name.to_owned(), path: self.site(name).to_string_lossy().into_owned() };
        SITES.iter().map(|name| site(name)).collect()
    }

    fn log_file(&self) -> Result<std::fs::File, Failure> {
        let path = self.data("log");
        std::fs::File::create(&path).map_err(|error| Failure::io("write", &path, &error))
    }
}

/// The three ways to show the same events.
#[derive(Debug)]
struct Show {
    json: bool,
    screen: Option<Screen>,
    view: Option<View>,
    sites: Vec<SiteStatus>,
    now_ms: u64,
}

impl Show {
    fn new(json: bool, screen: Option<Screen>) -> Self {
        Self { json, screen, view: None, sites: Vec::new(), now_ms: 0 }
    }

    /// Shows a picture and what led to it. False when nobody looks any more.
    fn happened(&mut self, picture: &Picture, events: Vec<Event>) -> Result<bool, Failure> {
        self.now_ms = picture.status.now_ms;
        if let Some(screen) = &self.screen {
            let service = events.iter().find_map(|event| match event {
                Event::Ready { service, .. } => Some(service.clone()),
                _ => None,
            });
            if let Some(service) = service {
                self.view = Some(View::new(&service, self.now_ms));
            }
            if let Some(view) = &mut self.view {
                view.remember(self.now_ms, events);
                screen.draw(&view.lines(picture, Screen::size()));
            }
            return Ok(true);
        }
        for event in events {
            if self.is_news(&event) && !output::print(&self.text(&event))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// People need no status that is as before; programs take it for a sign of life.
    fn is_news(&mut self, event: &Event) -> bool {
        let Event::Status { sites } = event else { return true };
        let is_new = *sites != self.sites;
        self.sites.clone_from(sites);
        self.json || is_new
    }

    fn text(&self, event: &Event) -> String {
        if self.json { output::to_json_line(event) } else { lines::line(event, self.now_ms) }
    }

    /// Gives the terminal back.
    fn leave(&mut self) {
        self.screen = None;
    }
}
