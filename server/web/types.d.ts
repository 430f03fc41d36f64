// What the server answers, and what the page is made of, for the type checker alone: nobody is sent this.

type Status = 'queued' | 'in_progress' | 'completed' | 'failed';

/** As in GET /v1/videos/{id}. */
interface Video {
  id: string;
  model: string;
  status: Status;
  progress: number;
  created_at: number;
  completed_at: number | null;
  prompt: string | null;
  size: string;
  native_size: string;
  seconds: string;
  remixed_from_video_id: string | null;
  error: { code: string; message: string } | null;
  negative_prompt: string;
  seed: number;
  num_inference_steps: number;
  guidance_scale: number;
  fps: number;
  num_frames: number;
  warnings: string[];
  stage: string | null;
  step: number | null;
  total_steps: number | null;
  eta_s: number | null;
  queue_position: number | null;
  inference_time_s: number | null;
  peak_memory_mb: number | null;
  stage_durations: Record<string, number> | null;
  metadata: Record<string, string>;
  priority: number;
  group: string | null;
  starred: boolean;
  /** How many previews there have been, as the events tell. */
  previews?: number;
}

/** As in GET /v1/models. */
interface ModelPull {
  model: string;
  status: 'in_progress' | 'completed' | 'failed' | 'cancelled';
  file: string;
  bytes_done: number;
  bytes_total: number;
  error: { code: string; message: string } | null;
}

interface Model {
  id: string;
  name: string;
  card: string;
  description: string;
  capabilities: string[];
  licence: string;
  licence_url: string;
  licence_note: string;
  licence_limit: string;
  licence_excludes: string[];
  licence_attribution: string;
  gated: boolean;
  installed: boolean;
  parameters: number;
  files_mb: number;
  min_vram_mb: number | null;
  fits_device: boolean | null;
  pull: ModelPull | null;
  sizes: string[];
  fps: number;
  max_seconds: number;
  num_inference_steps: number;
  guidance_scale: number;
}

/** As POST /v1/videos/estimate answers. */
interface Estimate {
  size: string;
  native_size: string;
  seconds: string;
  num_frames: number;
  native_frames: number;
  fps: number;
  windows: number;
  num_inference_steps: number;
  warnings: string[];
  predicted_time_s: number | null;
  predicted_memory_mb: number | null;
  queue_wait_s: number | null;
}

/** As in GET /v1/queue. */
interface Queue {
  workers: number;
  paused: string | null;
  running: { id: string }[];
  waiting: { id: string; queue_position: number | null; starts_in_s: number | null; eta_s: number | null }[];
  others: { running: number; waiting: number };
}

/** As GET /ready answers. */
interface Ready {
  status: string;
  reason: string | null;
  workers: {
    device: string;
    name: string | null;
    memory_total_mb: number | null;
    memory_free_mb: number | null;
    model: string | null;
    busy: boolean;
    models: { model: string; plan: string; memory_mb: number; unload_at: number | null }[];
  }[];
}

/** The video that is being thought of. Empty texts mean: as the model has it. */
interface Draft {
  prompt: string;
  negative: string;
  model: string;
  size: string;
  /** 0 for as the server has it. */
  seconds: number;
  seed: string;
  /** Whether the seed stays for the next video. */
  locked: boolean;
  count: number;
  steps: string;
  guidance: string;
  sound: boolean;
  /** The video whose settings these were. */
  from: Video | null;
}

/** As in GET /v1/prompts/templates. */
interface Template {
  id: string;
  name: string;
  description: string;
  text: string;
  shipped: boolean;
  /** Of one's own, counts its changes. */
  revision: number | null;
  slots: { name: string; label: string; required: boolean; suggestions: string[] }[];
}

/** As in GET /v1/prompts/log. */
interface Entry { prompt: string; created_at: number; videos: Video[] }

type View = 'create' | 'gallery' | 'compare' | 'library' | 'system';
interface Route { view: View; ids: string[] }
interface Toast { id: number; text: string; kind: 'info' | 'error'; act?: { label: string; run: () => void } }
interface Filters { text: string; model: string; starred: boolean; group: string; status: 'completed' | 'failed' }
interface Cell { id: string; index: number; left: number; width: number }
interface Row { top: number; height: number; cells: Cell[] }
type Part = 'all' | 'first' | 'last';
interface Controls {
  frame(): number;
  toggle(): void;
  step(frames: number): void;
  loop(): void;
  part(part: Part): void;
  zoom(): void;
}
type Children = import('preact').ComponentChildren;
type Piece = { kind: 'same' | 'gone' | 'new'; text: string };
type Slot = { id: string; label: string; ask: string };
type Theme = 'auto' | 'dark' | 'light';
